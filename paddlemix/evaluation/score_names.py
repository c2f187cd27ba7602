"""The names of all scores, for what has to know them before anything is scored; nothing here computes them.

A section of `report.score`'s report and a score in it are one name, as in the log of a training run: `vqa_exact_match`.
"""

from __future__ import annotations

# What a record asks for decides about its section; chats that ask for boxes are "grounding", for points "pointing".
SCORES: dict[str, tuple[str, ...]] = {
    "grounding": (
        "grounding_accuracy@0.5",
        "grounding_mean_iou",
        "grounding_by_gold_boxes_none_accuracy",
        "grounding_by_gold_boxes_one_accuracy",
        "grounding_by_gold_boxes_several_accuracy",
    ),
    "pointing": ("pointing_accuracy",),
    "vqa": ("vqa_exact_match", "vqa_vqav2_accuracy"),
    "caption": (
        "caption_cider",
        "caption_bleu_1",
        "caption_bleu_2",
        "caption_bleu_3",
        "caption_bleu_4",
        "caption_sacrebleu",
    ),
    "chat": ("chat_exact_match",),
}
ALL_SCORES = tuple(name for names in SCORES.values() for name in names)


def section_of(score: str) -> str | None:
    """Find the section that a score is in; None for what is no score."""
    return next((section for section, names in SCORES.items() if score in names), None)
