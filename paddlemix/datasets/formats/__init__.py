"""The record formats by the names that a config uses. A new format is one file here and one line below."""

from __future__ import annotations

from difflib import get_close_matches

from paddlemix.datasets.formats import (
    alpaca,
    caption,
    chatml,
    grounding,
    messages,
    ocrvqa,
    query_response,
    textvqa,
    vqa,
)
from paddlemix.datasets.formats.format import Format

# The name that stands for "find out from the records".
AUTO = "auto"

# Of several formats that read the first records alike, "auto" takes the one that stands first.
FORMATS: dict[str, Format] = {
    "messages": messages.FORMAT,
    **dict.fromkeys(("openai", "qwen2_vl_messages", "trl", "ms_swift_3", "sharegpt", "llama_factory"), messages.FORMAT),
    **dict.fromkeys(("llava", "llava_instruct", "llava_pretrain"), messages.FORMAT),
    "chatml_dataset": chatml.FORMAT,
    "query_response": query_response.FORMAT,
    "ms_swift_2": query_response.FORMAT,
    "alpaca": alpaca.FORMAT,
    **dict.fromkeys(("caption_dataset", "coco_caption", "blip_laion"), caption.FORMAT),
    **dict.fromkeys(("vqa_dataset", "coco_vqa", "vqav2"), vqa.FORMAT),
    "textvqa": textvqa.FORMAT,
    "ocrvqa": ocrvqa.FORMAT,
    **{f"ocrvqa_{split}": one for split, one in ocrvqa.SPLIT_FORMATS.items()},
    "grounding_xyxy": grounding.XYXY,
    "grounding_xywh": grounding.XYWH,
    "refcoco": grounding.XYWH,
    "coco_instances": grounding.XYWH,
}


def find_format(name: str) -> Format:
    """Look a format up.

    Args:
        name: a key of `FORMATS`.

    Returns:
        The format.

    Raises:
        ValueError: no format has this name.
    """
    if name in FORMATS:
        return FORMATS[name]
    nearest = get_close_matches(name, FORMATS, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"no record format is named {name!r}. Did you mean {nearest!r}? Known: {', '.join(FORMATS)}; "
        f"{AUTO!r} finds out."
    )
