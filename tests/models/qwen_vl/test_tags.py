import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.models.qwen_vl.tags import (
    ImageSpan,
    boxes_with_names,
    from_list_format,
    split_at_images,
    to_list_format,
)

PROMPT = "Picture 1: <img>a.png</img>\nPicture 2: <img>https://x.y/b.jpg</img>\nCompare"
TAGGED = ["<ref>", "</ref>", "<box>", "</box>", "<img>", "</img>", "(1,2),(3,4)", "a", "\n", "<|im_end|>"]


def test_a_prompt_is_put_together_with_its_images_numbered():
    elements = [{"image": "a.png"}, {"image": "https://x.y/b.jpg"}, {"text": "Compare"}]
    assert from_list_format(elements) == PROMPT


def test_boxes_follow_their_name_and_lose_what_is_behind_the_point():
    boxes = [[1.9, 2.2, 3.7, 999.99], [5, 6, 7, 8]]
    wanted = "<box>(1,2),(3,999)</box><box>(5,6),(7,8)</box>"
    assert from_list_format([{"ref": "猫", "box": boxes}]) == "<ref>猫</ref>" + wanted
    assert from_list_format([{"box": boxes}]) == wanted


@pytest.mark.parametrize(
    ("element", "problem"),
    [
        ({"ref": "only a name"}, "none of the keys image, text and box"),
        ({"video": "a.mp4"}, "none of the keys image, text and box"),
        ({"box": [[1, 2, 3]]}, "has 3 numbers; expected x1, y1, x2, y2"),
        ({"image": "a</img>.png"}, "holds a tag of images"),
        ({"image": "a<img>.png"}, "holds a tag of images"),
    ],
)
def test_an_element_that_is_none_is_refused(element, problem):
    with pytest.raises(ValueError, match=problem):
        from_list_format([{"text": "x"}, element])


def test_a_prompt_is_taken_apart_at_its_tags():
    assert to_list_format(PROMPT) == [
        {"text": "Picture 1: "},
        {"image": "a.png"},
        {"text": "\nPicture 2: "},
        {"image": "https://x.y/b.jpg"},
        {"text": "\nCompare"},
    ]
    assert to_list_format("<ref> 猫 </ref><box>(1,2),(3,4)</box>.") == [
        {"ref": " 猫 "},
        {"box": "(1,2),(3,4)"},
        {"text": "."},
    ]


@pytest.mark.parametrize("text", ["<ref>unclosed", "<|im_start|>x", "bad</ref> close", "<img>a.png"])
def test_a_tag_without_partner_is_text_also_where_the_original_fails(text):
    # The original raises for the first two: what a model has said must never be an error.
    assert to_list_format(text) == [{"text": text}]


@settings(derandomize=True, deadline=None)
@given(text=st.lists(st.sampled_from(TAGGED)).map("".join))
def test_nothing_is_lost_in_taking_apart(text):
    tags = {"image": "img", "ref": "ref", "box": "box", "quad": "quad"}
    written = ""
    for element in to_list_format(text):
        ((kind, content),) = element.items()
        written += content if kind == "text" else f"<{tags[kind]}>{content}</{tags[kind]}>"
    assert written == text
    assert all(len(found["box"]) == 4 for found in boxes_with_names(text))


def test_all_boxes_behind_a_name_have_it():
    # The original names the first of them only, and only where it follows at once.
    text = "<ref> a </ref><box>(1,2),(3,4)</box><box>(5,6),(7,8)</box> and <ref>b</ref> x <box>(9,9),(10,10)</box>"
    assert boxes_with_names(text) == [
        {"box": (1, 2, 3, 4), "ref": "a"},
        {"box": (5, 6, 7, 8), "ref": "a"},
        {"box": (9, 9, 10, 10), "ref": "b"},
    ]


@pytest.mark.parametrize("corners", ["(1,2),(3,4),(5,6)", "(a,b),(c,d)", "", "(1,2)", "(-1,2),(3,4)", "(１,2),(3,4)"])
def test_a_malformed_box_is_left_aside_where_the_original_fails(corners):
    text = f"<ref>a</ref><box>{corners}</box><box>(5, 6), (7, 8)</box>"
    assert boxes_with_names(text) == [{"box": (5, 6, 7, 8), "ref": "a"}]


def test_a_text_is_cut_at_its_images():
    assert list(split_at_images("a<img>b.png</img><img></img>c")) == ["a", ImageSpan("b.png"), ImageSpan(""), "c"]
    assert list(split_at_images("</img>")) == ["</img>"]


class TestPublishedCases:
    def test_list_formats_are_put_together_alike(self, published_qwen_cases):
        cases = published_qwen_cases["from_list_format"]
        assert len(cases) == 8 and sum("error" in case for case in cases) == 1
        for case in cases:
            if "error" in case:
                with pytest.raises(ValueError, match="none of the keys"):
                    from_list_format(case["list"])
            else:
                assert from_list_format(case["list"]) == case["text"]
                assert to_list_format(case["text"]) == case["to_list_format"]

    def test_texts_are_taken_apart_alike(self, published_qwen_cases):
        cases = published_qwen_cases["to_list_format"]
        assert len(cases) == 11 and sum("error" in case for case in cases) == 2
        for case in cases:
            wanted = [{"text": case["text"]}] if "error" in case else case["list"]
            assert to_list_format(case["text"]) == wanted

    def test_boxes_are_read_alike_but_for_their_names(self, published_qwen_cases):
        cases = published_qwen_cases["boxes"]
        assert len(cases) == 8 and sum("error" in case for case in cases) == 2
        for case in cases:
            found = boxes_with_names(case["text"])
            wanted = case.get("boxes", [])
            assert [list(one["box"]) for one in found] == [one["box"] for one in wanted]
            # A name of the original's is here too; further boxes have one where it gives none.
            assert all(
                one.get("ref", ours.get("ref")) == ours.get("ref") for one, ours in zip(wanted, found, strict=True)
            )
