"""Why the tensors of a checkpoint do not fit the model that its config.json describes, and what helps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.stored_tensor import Source, same_numbers

# Of each kind of problem so many tensors are named; of a whole model under other names there are a thousand.
_NAMED = 10
# What one of the lines tells of where the file comes from; the first that fits counts.
_CAUSES = (
    (
        re.compile(r"^unexpected: .*\.lora_(embedding_)?[AB]\b"),
        "The file holds a model with an adapter in it that is not merged. Let the program that wrote it save the "
        "adapter (`save_pretrained` of the PeftModel), or merge it first "
        "(`merge_and_unload().save_pretrained(merged)`).",
    ),
    (
        re.compile(r"^unexpected: .*\.(qweight|qzeros|scales|absmax|quant_state\S*|weight_(scale|scale_inv|packed)) "),
        "The weights are quantised otherwise than config.json says (`quantization_config`). Take both from one "
        "checkpoint.",
    ),
    (
        re.compile(r"^wrong shape: \S+ is \[0\]"),
        "Tensors of no numbers are what a rank of DeepSpeed's ZeRO-3 holds of weights that are not gathered. Save "
        "again with `stage3_gather_16bit_weights_on_model_save` true, or make weights of the checkpoint's "
        "`global_step` folder with its zero_to_fp32.py.",
    ),
    (
        re.compile(r"^unexpected: .*\.(qkv_proj|up_gate_proj|gate_up_proj)\."),
        "Layers are fused in this file (qkv_proj, up_gate_proj), which is not read. Save it with the published names "
        "by the program that wrote it.",
    ),
    (
        re.compile(r"^missing: lm_head\.weight$"),
        "If the head shares the embedding's weight, set `tie_word_embeddings` to true in config.json. `AutoModel` of "
        "transformers saves a model without its head: save it with the class that `architectures` names.",
    ),
)  # fmt: skip


def refusal(folder: Path, problems: Sequence[str], remedy: str = "") -> ValueError:
    """Make the error of a checkpoint whose tensors do not fit.

    Args:
        folder: the checkpoint's.
        problems: a line a tensor, `kind: name and what else there is to say`.
        remedy: what helps, where the caller knows it.

    Returns:
        The error: how many there are, the first of each kind, and what a known cause is and asks for.
    """
    lines = "".join(f"\n  {line}" for line in _first_of_each_kind(problems))
    cause = remedy or next((said for pattern, said in _CAUSES if any(map(pattern.search, problems))), "")
    count = "1 tensor does" if len(problems) == 1 else f"{len(problems)} tensors do"
    return ValueError(
        f"{folder}: {count} not fit the model that config.json describes:{lines}" + (f"\n{cause}" if cause else "")
    )


def check_repeated(folder: Path, stored: Mapping[str, Source], layout: WeightLayout) -> None:
    """Make sure that a tensor which repeats a parameter holds the parameter's numbers.

    Releases of transformers differ in what they make of a head of its own where config.json ties it to the embedding:
    those before 5 leave it out, later ones keep both.

    Args:
        folder: the checkpoint's.
        stored: its tensors, by the parameter that each is for.
        layout: the family's.

    Raises:
        ValueError: it holds others.
    """
    for name, kept in layout.optional.items():
        one, other = stored.get(name), stored.get(kept)
        # How a head that has no parameter lies in Paddle's files they do not say.
        if one is None or other is None or one.in_paddles_order or same_numbers(one, other):
            continue
        raise ValueError(
            f"{folder}: config.json says that head and embedding are one weight (`tie_word_embeddings` is true), but "
            f"{one.name} ({one.file.name}) and {other.name} differ. If they were trained apart, as with "
            "`modules_to_save` of one of them, set `tie_word_embeddings` to false in config.json, in its `text_config` "
            f"too; if not, take {one.name} out of the file."
        )


def _first_of_each_kind(problems: Sequence[str]) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for line in problems:
        kinds.setdefault(line.partition(":")[0], []).append(line)
    shown = []
    for kind, lines in kinds.items():
        rest = len(lines) - _NAMED
        # A line that says "and 1 more" is no shorter than that one.
        shown += lines if rest <= 1 else [*lines[:_NAMED], f"{kind}: {rest} more"]
    return shown
