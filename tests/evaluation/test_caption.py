import math

import pytest

from paddlemix.evaluation.caption import caption_scores, tokenize

REFERENCES = [
    ["a red circle on a grey ground"],
    ["two blue squares lie side by side"],
    ["nothing but green stripes here"],
]
FIRSTS = [texts[0] for texts in REFERENCES]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A red circle, on grey!", ["a", "red", "circle", "on", "grey"]),
        ("the man's T-shirt", ["the", "man's", "t-shirt"]),
        ("don’t", ["don't"]),
        ("3.5 or 1,000.", ["3.5", "or", "1,000"]),
        ("一个红色的圆。", ["一", "个", "红", "色", "的", "圆"]),
        ("红色circle两个", ["红", "色", "circle", "两", "个"]),
        ("red_circle", ["red", "circle"]),
        ("... ！", []),
    ],
)
def test_text_falls_into_words_and_chinese_into_characters(text, tokens):
    assert tokenize(text) == tokens


def test_captions_equal_to_their_references_reach_the_highest_scores():
    scores = caption_scores(FIRSTS, REFERENCES)
    assert scores["cider"] == pytest.approx(10.0)
    assert [scores[f"bleu_{order}"] for order in (1, 2, 3, 4)] == pytest.approx([1.0] * 4)
    assert scores["sacrebleu"] == pytest.approx(100.0)
    assert scores["captions"] == 3


def test_captions_of_the_wrong_images_score_lower_than_the_right_ones():
    shuffled = caption_scores(FIRSTS[1:] + FIRSTS[:1], REFERENCES)
    assert shuffled["cider"] < 1.0
    assert shuffled["bleu_4"] < 0.1
    assert shuffled["sacrebleu"] < 10


def test_case_and_punctuation_do_not_count_for_cider_and_bleu():
    dressed = [text.capitalize() + "." for text in FIRSTS]
    plain, scores = caption_scores(FIRSTS, REFERENCES), caption_scores(dressed, REFERENCES)
    assert {key: scores[key] for key in ("cider", "bleu_4")} == {key: plain[key] for key in ("cider", "bleu_4")}


def test_bleu_of_a_small_case_is_what_the_formula_says():
    scores = caption_scores(["the red circle"], [["the red big circle"]])
    brevity = math.exp(1 - 4 / 3)
    assert scores["bleu_1"] == pytest.approx(brevity)
    assert scores["bleu_2"] == pytest.approx(brevity * math.sqrt(1 / 2))


def test_chinese_captions_are_compared_by_character():
    references = [["一个红色的圆形在左边"], ["两个蓝色的方块"]]
    near = caption_scores(["一个红色的圆形在右边", "两个蓝色的方块"], references)
    assert near["bleu_1"] == pytest.approx(16 / 17)
    assert near["cider"] > 5
    assert "tok:zh" in near["sacrebleu_signature"]
    assert 50 < near["sacrebleu"] < 100


def test_images_may_have_different_numbers_of_references():
    scores = caption_scores(
        FIRSTS, [[*REFERENCES[0], "some disc"], REFERENCES[1], ["stripes", *REFERENCES[2], "lines"]]
    )
    assert scores["bleu_4"] == pytest.approx(1.0)
    assert scores["sacrebleu"] == pytest.approx(100.0)
    assert "tok:13a" in scores["sacrebleu_signature"]


def test_an_empty_caption_scores_zero_and_does_not_break_the_others():
    scores = caption_scores(["", *FIRSTS[1:]], REFERENCES)
    assert scores["cider"] == pytest.approx(10.0 * 2 / 3)
    assert caption_scores([""] * 3, REFERENCES)["bleu_1"] == 0.0


def test_a_single_image_has_bleu_but_no_cider():
    scores = caption_scores(FIRSTS[:1], REFERENCES[:1])
    assert scores["cider"] is None
    assert scores["bleu_4"] == pytest.approx(1.0)


def test_nothing_is_printed(capfd):
    caption_scores(FIRSTS, REFERENCES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("texts", [[], ["..."], ["a circle", ""]])
def test_references_without_a_word_are_refused(texts):
    with pytest.raises(ValueError, match="each with a word"):
        caption_scores(["a circle", "a square"], [["a circle"], texts])


@pytest.mark.parametrize(("captions", "references"), [([], []), (["a"], [["a"], ["b"]])])
def test_captions_and_images_must_be_as_many_and_some(captions, references):
    with pytest.raises(ValueError, match="expected as many"):
        caption_scores(captions, references)
