from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.conversation import Box, Point, Quad, RecordError, RecordId, Reference, Text
from paddlemix.datasets.reading.places.tags import split_tags

SOURCE = RecordId("a.json", 4)


def box(x1: float, y1: float, x2: float, y2: float, image: int = 0) -> Box:
    return Box(x1, y1, x2, y2, unit="thousandth", image=image)


def quad(*corners: float) -> Quad:
    return Quad(corners, unit="thousandth")


# As text they mean what they say, with tags of the other spelling among them.
WITHOUT_MARKUP = [
    ("the <ref> tag, </box>, <quad>", (Text("the <ref> tag, </box>, <quad>"),)),
    (r"a regex: \<ref>", (Text(r"a regex: \<ref>"),)),
    ("<box>(1,2),(3,4)</box>", (Text("<box>(1,2),(3,4)</box>"),)),
    ("click(<|box_start|>(246,113)<|box_end|>)", (Text("click("), Point(246, 113, unit="thousandth"), Text(")"))),
    (
        "<|object_ref_start|>a <b><|object_ref_end|><|quad_start|>(1,1),(9,2),(8,9),(0,7)<|quad_end|>",
        (Reference("a <b>"), quad(1, 1, 9, 2, 8, 9, 0, 7)),
    ),
    ("<|box_start|>(1,2", (Text("<|box_start|>(1,2"),)),
    (
        "<|box_start|>x<|box_end|><|box_start|>(1,2)<|box_end|>",
        (Text("<|box_start|>x<|box_end|>"), Point(1, 2, "thousandth")),
    ),
    (r"\<|box_start|>(1,2)<|box_end|>", (Text("<|box_start|>(1,2)<|box_end|>"),)),
    ("<|object_ref_start|> <|object_ref_end|>", (Text("<|object_ref_start|> <|object_ref_end|>"),)),
]

GOOD = [
    ("", ()),
    ("plain, no tags, 3 < 4 <b>", (Text("plain, no tags, 3 < 4 <b>"),)),
    ("<ref>巴士</ref><box>(178,279),(806,884)</box>", (Reference("巴士"), box(178, 279, 806, 884))),
    (
        "<|object_ref_start|>巴士<|object_ref_end|><|box_start|>(178,279),(806,884)<|box_end|>",
        (Reference("巴士"), box(178, 279, 806, 884)),
    ),
    (
        "Two <ref>red circles</ref><box>(0,0),(10,10)</box><box>(20,20),(1000,1000)</box>.",
        (Text("Two "), Reference("red circles"), box(0, 0, 10, 10), box(20, 20, 1000, 1000), Text(".")),
    ),
    ("<box> ( 1 , 2.5 ) , (3, 4)\n</box>", (box(1, 2.5, 3, 4),)),
    ("<ref>门</ref><box>(246, 113)</box>", (Reference("门"), Point(246, 113, unit="thousandth"))),
    ("click('<|box_start|>(0,1000)<|box_end|>')", (Text("click('"), Point(0, 1000, unit="thousandth"), Text("')"))),
    ("<ref>a</ref> and <ref>b</ref>", (Reference("a"), Text(" and "), Reference("b"))),
    ("<ref>two\nlines</ref>", (Reference("two\nlines"),)),
    ("<|im_end|> stays text", (Text("<|im_end|> stays text"),)),
    ("<ref>t</ref><quad>(1,1),(9,2),(8,9),(0,7)</quad>", (Reference("t"), quad(1, 1, 9, 2, 8, 9, 0, 7))),
    ("<|quad_start|>(1,1), (9,2),(8,9),(0,7)<|quad_end|>", (quad(1, 1, 9, 2, 8, 9, 0, 7),)),
    (r"write \<ref>name\</ref>", (Text("write <ref>name</ref>"),)),
    (r"\\<box>, \n and \<|box_start|>", (Text(r"\<box>, \n and <|box_start|>"),)),
    (r"<ref>the \<box> tag</ref><box>(1,2),(3,4)</box>", (Reference("the <box> tag"), box(1, 2, 3, 4))),
    ("<box>(0,0),(1,1)</box>", (box(0, 0, 1, 1),)),
]

BAD = [
    ("<ref>bus", "tag `<ref>` at character 0"),
    ("bus</ref>", "tag `</ref>` at character 3"),
    ("<box>(1,2),(3,4)", "tag `<box>` at character 0"),
    ("(1,2),(3,4)</box>", "tag `</box>` at character 11"),
    ("<|object_ref_start|>bus", "tag `<|object_ref_start|>`"),
    ("<|box_end|>", "tag `<|box_end|>`"),
    ("<ref>bus<|object_ref_end|>", "tag `<ref>`"),
    ("<ref>a<ref>b</ref></ref>", "not nested"),
    ("<ref>a<box>(1,2),(3,4)</box></ref>", "not nested"),
    ("<ref></ref>", "a reference is blank"),
    ("<ref> \n</ref>", "a reference is blank"),
    ("<box></box>", "box '' is malformed"),
    ("<box>(1,2),(3)</box>", "malformed; expected `(x1,y1),(x2,y2)`"),
    ("<box>1,2,3,4</box>", "malformed"),
    ("<box>(1,2),</box>", "or `(x,y)` for a point"),
    ("<box>(1)</box>", "malformed"),
    ("<box>(1,1001)</box>", "leaves 0..1000"),
    ("<box>(1,2),(3,4),(5,6)</box>", "malformed"),
    ("<box>(1,2)(3,4)</box>", "malformed"),
    ("<box>(a,2),(3,4)</box>", "malformed"),
    ("<box>(1,2),(3,1e3)</box>", "malformed"),
    ("<box>(１,2),(3,4)</box>", "malformed"),
    ("<box>(1,2),(3,1001)</box>", "leaves 0..1000"),
    ("<box>(-1,2),(3,4)</box>", "leaves 0..1000"),
    ("<box>(5,2),(5,4)</box>", "has no area"),
    ("<box>(5,2),(4,4)</box>", "has no area"),
    ("<box>(1,4),(5,4)</box>", "has no area"),
    ("<quad>(1,1),(2,1),(2,2)</quad>", "quad '(1,1),(2,1),(2,2)' is malformed"),
    ("<quad>(1,1),(2,1)</quad>", "quad '(1,1),(2,1)' is malformed"),
    ("<box>(1,1),(2,1),(2,2),(1,2)</box>", "malformed"),
    ("<quad>(1,1),(2,2),(3,3),(4,4)</quad>", "has no area or crosses itself"),
    ("<quad>(1,1),(9,1),(1,9),(9,9)</quad>", "has no area or crosses itself"),
    ("<|quad_start|>(1,1),(2,1),(2,2),(1,1002)<|quad_end|>", "leaves 0..1000"),
    ("<quad>(1,1),(2,1)", "tag `<quad>` at character 0"),
    ("<box>(0.1,0.2),(0.5,0.6)</box>", "looks like fractions of the sides; expected thousandths"),
    ("<box>(0,0.2)</box>", "looks like fractions"),
    ("use the <ref> tag", "write a backslash before it, or set `markup` of the set to false"),
    ("<box>here</box>", "write a backslash before it, or set `markup` of the set to false"),
    ("<ref></ref>", "write a backslash before it, or set `markup` of the set to false"),
]


@pytest.mark.parametrize(("text", "parts"), GOOD)
def test_text_is_split_at_both_spellings_of_the_tags(text, parts):
    assert split_tags(text, 0, SOURCE) == parts


@pytest.mark.parametrize(("text", "problem"), BAD)
def test_a_tag_or_box_that_cannot_be_meant_is_refused(text, problem):
    with pytest.raises(RecordError) as caught:
        split_tags(text, 0, SOURCE)
    assert str(caught.value).startswith("a.json, record 4: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize(("text", "parts"), WITHOUT_MARKUP)
def test_without_markup_only_whole_tags_of_control_tokens_are_read(text, parts):
    assert split_tags(text, 0, SOURCE, markup=False) == parts


@pytest.mark.parametrize("text", [text for text, _ in WITHOUT_MARKUP])
def test_without_markup_and_an_image_everything_is_text(text):
    assert split_tags(text, None, SOURCE, markup=False) == (Text(text),)


def test_a_whole_box_that_is_none_is_refused_without_markup_too():
    with pytest.raises(RecordError, match="leaves 0..1000"):
        split_tags("<|box_start|>(1,2),(3,2000)<|box_end|>", 0, SOURCE, markup=False)


def test_boxes_lie_on_the_video_that_is_given():
    (found,) = split_tags("<box>(1,2),(3,4)</box>", None, SOURCE, video=1)
    assert isinstance(found, Box) and found.video == 1


def test_boxes_lie_on_the_image_that_is_given():
    assert split_tags("<box>(1,2),(3,4)</box>", 2, SOURCE) == (box(1, 2, 3, 4, image=2),)


@settings(derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.text(alphabet=st.characters(exclude_characters="<>|"), min_size=1),
            st.tuples(st.integers(0, 499), st.integers(0, 499), st.integers(500, 1000), st.integers(500, 1000)),
        ),
        min_size=1,
    )
)
def test_no_character_outside_a_tag_is_lost(pieces):
    written = "".join(
        piece if isinstance(piece, str) else "<box>({},{}),({},{})</box>".format(*piece) for piece in pieces
    )
    parts = split_tags(written, 0, SOURCE)
    assert "".join(part.text for part in parts if isinstance(part, Text)) == "".join(
        piece for piece in pieces if isinstance(piece, str)
    )
    assert [part for part in parts if isinstance(part, Box)] == [
        box(*piece) for piece in pieces if isinstance(piece, tuple)
    ]
