from itertools import combinations

import pytest

from paddlemix.evaluation.vqa import is_exact_match, normalize_answer, soft_accuracy, vqa_scores


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Red, circle.", "red circle"),
        ("two dogs and ten cats", "2 dogs and 10 cats"),
        ("None", "0"),
        ("1,000", "1000"),
        ("red,blue", "red blue"),
        ("1,2", "1 2"),
        ("3.5", "3.5"),
        ("U.S.", "us"),
        ("t-shirt\nblack", "t shirt black"),
        ("dont", "don't"),
        ("don’t", "don't"),
        ("were", "were"),
        ("another theme", "another theme"),
        ("  \t ", ""),
    ],
)
def test_english_answers_get_the_normal_form_of_vqav2(answer, normal):
    assert normalize_answer(answer) == normal


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("红色的。", "红色的"),
        ("红色 的", "红色的"),
        ("“是的”！", "是的"),
        ("ＲＥＤ", "red"),
        ("3，000 只", "3000只"),
        ("三", "3"),
        ("两", "2"),
        ("三角形", "三角形"),
        ("《西游记》、是", "西游记是"),
        ("十点。3个", "十点3个"),
    ],
)
def test_chinese_answers_lose_punctuation_width_and_spaces(answer, normal):
    assert normalize_answer(answer) == normal


@pytest.mark.parametrize("text", ["The Red, circle.", "A", "?", "3，000 只", "dont", "二", "it's 5.0", "a. the"])
def test_normalizing_twice_changes_nothing_more(text):
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


@pytest.mark.parametrize("gold", ["A", "the", "?"])
def test_silence_does_not_equal_an_answer_of_an_article_or_a_mark(gold):
    assert is_exact_match(gold, [gold])
    assert not is_exact_match("", [gold])


def test_an_answer_is_right_when_it_equals_any_gold_answer_and_not_when_it_only_holds_one():
    assert is_exact_match("A circle!", ["square", "circle"])
    assert not is_exact_match("red circle", ["square", "circle"])


@pytest.mark.parametrize("agreeing", range(11))
def test_soft_accuracy_is_the_mean_over_all_nine_of_ten_annotators(agreeing):
    gold = ["Red."] * agreeing + ["blue"] * (10 - agreeing)
    subsets = list(combinations(gold, 9))
    expected = sum(min(1.0, subset.count("Red.") / 3) for subset in subsets) / len(subsets)
    assert soft_accuracy("red", gold) == pytest.approx(expected)


def test_soft_accuracy_has_its_known_values():
    values = [soft_accuracy("yes", ["yes"] * count + ["no"] * (10 - count)) for count in (0, 1, 2, 3, 4)]
    assert values == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.0])


def test_soft_accuracy_wants_ten_answers():
    with pytest.raises(ValueError, match="3 gold answers, expected 10"):
        soft_accuracy("yes", ["yes"] * 3)


def test_soft_accuracy_is_reported_over_the_questions_with_ten_answers_only():
    ten = ["yes"] * 2 + ["no"] * 8
    scores = vqa_scores(["yes", "red", "blue"], [ten, ["red"], ["green"]])
    assert scores == {
        "exact_match": pytest.approx(2 / 3),
        "questions": 3,
        "vqav2_accuracy": pytest.approx(0.6),
        "vqav2_questions": 1,
    }
    assert vqa_scores(["red"], [["red"]]) == {"exact_match": 1.0, "questions": 1}


@pytest.mark.parametrize(("answers", "gold"), [([], []), (["a"], []), (["a"], [["a"], ["b"]])])
def test_answers_and_questions_must_be_as_many_and_some(answers, gold):
    with pytest.raises(ValueError, match="expected as many"):
        vqa_scores(answers, gold)
