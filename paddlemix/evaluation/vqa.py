"""Accuracy of short answers.

Answers are compared after a normalisation that follows the rules of VQAv2 and adds Chinese: full-width forms,
Chinese punctuation and numerals, and no meaning in the spaces between Chinese characters.

Source: Antol et al., "VQA: Visual Question Answering", 2015, arXiv:1505.00468; Goyal et al., "Making the V in VQA
Matter", 2017, arXiv:1612.00837.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from paddlemix.evaluation.unspaced import UNSPACED

ANNOTATORS = 10

_ARTICLES = frozenset({"a", "an", "the"})
_COUNTING = ("zero one two three four five six seven eight nine ten", "零 一 二 三 四 五 六 七 八 九 十")
# Those whose spelling without the apostrophe is another word (we're, I'll, it's) are missing on purpose.
_CONTRACTIONS = """
    ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't oughtn't
    shouldn't wasn't weren't won't wouldn't could've might've must've should've would've i'm i've you're you've you'll
    you'd he's she's they're they've they'll they'd we've who's who've who'll who'd what's where's when's why's
    how's that's there's here's let's somebody's someone's something's ma'am o'clock y'all
"""
_SPELLINGS = {
    "none": "0",
    "〇": "0",
    "两": "2",
    **{word: str(number) for line in _COUNTING for number, word in enumerate(line.split())},
    **{word.replace("'", ""): word for word in _CONTRACTIONS.split()},
}

_FULL_WIDTH = {0xFF01 + offset: 0x21 + offset for offset in range(94)}
_ONE_WIDTH = {**_FULL_WIDTH, **str.maketrans("‘’\u3000", "'' ")}
_MARKS_TO_SPACES = dict.fromkeys(map(ord, ';/[]"{}()=+\\_-><@`,?!、。《》〈〉「」『』【】〔〕“”…—–·'), " ")
_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FULL_STOP = re.compile(r"\.(?!\d)")
_IDLE_SPACE = re.compile(f"(?<=[{UNSPACED}]) | (?=[{UNSPACED}])")


def normalize_answer(text: str) -> str:
    """Bring an answer into the form in which answers are compared.

    Lower case; no articles; full-width forms narrowed; the comma in 1,000 and full stops that are no decimal points
    removed, other punctuation turned into spaces; number words up to ten as digits; apostrophes put back into
    contractions; single spaces, and none beside Chinese characters. Unlike VQAv2's own rules, which leave nothing of
    it, an answer of an article or punctuation alone ("A") is kept, so that silence does not equal it.

    Args:
        text: an answer, stripped of control tokens.

    Returns:
        The normal form; empty only for an empty answer.
    """
    narrow = text.lower().translate(_ONE_WIDTH)
    bare = _FULL_STOP.sub("", _THOUSANDS_COMMA.sub("", narrow)).translate(_MARKS_TO_SPACES)
    words = [_SPELLINGS.get(word, word) for word in bare.split() if word not in _ARTICLES]
    return _IDLE_SPACE.sub("", " ".join(words)) or bare.strip() or narrow.strip()


def is_exact_match(answer: str, gold: Sequence[str]) -> bool:
    """Tell whether `answer` equals one of the gold answers after normalisation."""
    return normalize_answer(answer) in {normalize_answer(text) for text in gold}


def soft_accuracy(answer: str, gold: Sequence[str]) -> float:
    """Compute VQAv2's accuracy: three of ten annotators who agree make an answer right.

    min(1, n/3), n being the annotators among nine who gave this answer, averaged over the ten ways to leave one out.

    Args:
        answer: the predicted answer.
        gold: the ten annotators' answers.

    Returns:
        0..1.

    Raises:
        ValueError: there are not ten gold answers.
    """
    if len(gold) != ANNOTATORS:
        raise ValueError(f"{len(gold)} gold answers, expected {ANNOTATORS}: VQAv2's accuracy is defined for these only")
    predicted = normalize_answer(answer)
    agrees = [normalize_answer(text) == predicted for text in gold]
    total = sum(agrees)
    return sum(min(1.0, (total - left_out) / 3) for left_out in agrees) / ANNOTATORS


def vqa_scores(answers: Sequence[str], gold: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Compute the accuracy over questions with short answers.

    Args:
        answers: one predicted answer per question.
        gold: the gold answers of each question, at least one.

    Returns:
        `exact_match`: share of questions whose answer equals one of the gold ones, 0..1.
        `questions`: their number.
        `vqav2_accuracy`, `vqav2_questions`: `soft_accuracy` over the questions with ten gold answers and their number;
        left out when there are none.

    Raises:
        ValueError: no questions, or not as many answers as gold.
    """
    if not answers or len(answers) != len(gold):
        raise ValueError(f"{len(answers)} answers for {len(gold)} questions, expected as many, and at least one")
    right = [is_exact_match(answer, texts) for answer, texts in zip(answers, gold, strict=True)]
    soft = [
        soft_accuracy(answer, texts) for answer, texts in zip(answers, gold, strict=True) if len(texts) == ANNOTATORS
    ]
    scores: dict[str, Any] = {"exact_match": sum(right) / len(right), "questions": len(right)}
    if soft:
        scores |= {"vqav2_accuracy": sum(soft) / len(soft), "vqav2_questions": len(soft)}
    return scores
