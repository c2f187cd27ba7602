"""The record formats by the names that a config uses. A new format is one file here and one line below."""

from __future__ import annotations

from difflib import get_close_matches

from paddlemix.datasets.formats import (
    blip_laion,
    caption,
    chatml,
    grounding,
    llava,
    ms_swift_2,
    ms_swift_3,
    ocrvqa,
    openai,
    sharegpt,
    textvqa,
    vqa,
)
from paddlemix.datasets.formats.format import Format

# The name that stands for "find out from the records".
AUTO = "auto"

# Of several formats that read the first records alike, "auto" takes the one that stands first.
FORMATS: dict[str, Format] = {
    "chatml_dataset": chatml.FORMAT,
    "caption_dataset": caption.FORMAT,
    "coco_caption": caption.FORMAT,
    "vqa_dataset": vqa.FORMAT,
    "coco_vqa": vqa.FORMAT,
    "vqav2": vqa.FORMAT,
    "textvqa": textvqa.FORMAT,
    "ocrvqa": ocrvqa.FORMAT,
    "ocrvqa_train": ocrvqa.SPLIT_FORMATS["train"],
    "ocrvqa_val": ocrvqa.SPLIT_FORMATS["val"],
    "ocrvqa_test": ocrvqa.SPLIT_FORMATS["test"],
    "llava": llava.FORMAT,
    "llava_instruct": llava.FORMAT,
    "llava_pretrain": llava.FORMAT,
    "blip_laion": blip_laion.FORMAT,
    "ms_swift_3": ms_swift_3.FORMAT,
    "ms_swift_2": ms_swift_2.FORMAT,
    "sharegpt": sharegpt.FORMAT,
    "llama_factory": sharegpt.FORMAT,
    "openai": openai.FORMAT,
    "qwen2_vl_messages": openai.FORMAT,
    "grounding_xyxy": grounding.XYXY,
    "grounding_xywh": grounding.XYWH,
    "refcoco": grounding.XYWH,
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
