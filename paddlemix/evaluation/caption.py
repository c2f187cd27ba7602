"""Likeness of captions to reference captions: CIDEr and BLEU.

CIDEr weighs an n-gram by how few images have it in their references. These document frequencies are counted on the
reference set that is scored, so values from different sets, or from a part of a set, cannot be compared.

Source: Vedantam et al., "CIDEr", 2015, arXiv:1411.5726 (the CIDEr-D variant of coco-caption); Papineni et al., "BLEU",
2002; Post, "A Call for Clarity in Reporting BLEU Scores", 2018, arXiv:1804.08771 (sacrebleu).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from sacrebleu.metrics import BLEU

from paddlemix.evaluation.unspaced import UNSPACED, holds_unspaced

_LETTERS = rf"(?:(?![{UNSPACED}])[^\W_])+"
_TOKEN = re.compile(rf"[{UNSPACED}]|\d+(?:[.,]\d+)+|{_LETTERS}(?:['-]{_LETTERS})*")


def tokenize(text: str) -> list[str]:
    """Split into lower-case words without punctuation; Chinese and Japanese one character a token.

    Apostrophes and hyphens inside a word, and the marks inside a number, stay. COCO's own tokenizer, which needs Java,
    differs from this one only in taking possessives and contractions apart.
    """
    return _TOKEN.findall(text.lower().replace("’", "'"))


def check_references(references: Sequence[str]) -> None:
    """Refuse reference captions that nothing can be compared with.

    Args:
        references: one image's reference captions.

    Raises:
        ValueError: there are none, or one holds no word.
    """
    if not references or not all(tokenize(text) for text in references):
        raise ValueError(f"reference captions are {list(references)}, expected one or more, each with a word in it")


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Compute CIDEr and BLEU of predicted captions.

    Args:
        captions: one predicted caption per image; an empty one scores 0.
        references: the reference captions of each image, at least one.

    Returns:
        `cider`: 0..10, 1.0 being what papers print as 100; None for a single image, whose n-grams all weigh nothing.
        `bleu_1` to `bleu_4`: 0..1, of the whole set, on the tokens of `tokenize`.
        `sacrebleu`: BLEU-4 as sacrebleu computes it, 0..100, with punctuation and its Chinese tokenizer where a
        reference holds Chinese; `sacrebleu_signature` names its settings.
        `captions`: the number of images.

    Raises:
        ValueError: no captions, not as many as references, or references without a word.
    """
    if not captions or len(captions) != len(references):
        raise ValueError(f"{len(captions)} captions for {len(references)} images, expected as many, and at least one")
    for texts in references:
        check_references(texts)
    results = {index: [_spaced(text)] for index, text in enumerate(captions)}
    golds = {index: [_spaced(text) for text in texts] for index, texts in enumerate(references)}
    bleus, _ = Bleu(4).compute_score(golds, results, verbose=0)
    return {
        "cider": float(Cider().compute_score(golds, results)[0]) if len(captions) > 1 else None,
        **{f"bleu_{order}": float(value) for order, value in enumerate(bleus, start=1)},
        **_sacrebleu(captions, references),
        "captions": len(captions),
    }


def _spaced(text: str) -> str:
    return " ".join(tokenize(text))


def _sacrebleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    chinese = any(holds_unspaced(text) for texts in references for text in texts)
    metric = BLEU(lowercase=True, tokenize="zh" if chinese else "13a")
    most = max(len(texts) for texts in references)
    # sacrebleu wants the first reference of every image, then the second of every image, and so on.
    columns = [[texts[rank] if rank < len(texts) else None for texts in references] for rank in range(most)]
    # Its annotation forgets that None may stand where an image has fewer references than another.
    score = metric.corpus_score(list(captions), cast("list[list[str]]", columns)).score
    return {"sacrebleu": float(score), "sacrebleu_signature": str(metric.get_signature())}
