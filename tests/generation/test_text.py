"""Answers as text: whole characters, cut off before a stop string."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from paddlemix.generation import AnswerText
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer

TOKENIZER = Qwen2Tokenizer.from_pretrained(Path(__file__).parents[1] / "fixtures" / "qwen2_vl_processor")
MIXED = "a你😀é\u200d👩\N{REPLACEMENT CHARACTER}b"
# Few letters, so that stop strings occur, overlap and begin without ending.
TEXTS = st.text("ab你😀", max_size=20)
STOPS = st.lists(st.text("ab你😀", min_size=1, max_size=4), max_size=3)


def decode(ids):
    """A tokenizer whose tokens are single bytes, as every byte-level one has them."""
    return bytes(ids).decode("utf-8", errors="replace")


def pieces_of(tokens, decoder, stops=()):
    """The pieces of an answer, and whether a stop string ended it."""
    text = AnswerText(decoder, stops)
    pieces = []
    for token in tokens:
        pieces.append(text.add(token))
        if text.has_ended:
            break
    return [*pieces, text.finish()], text.has_ended


def pieces_of_cut(text, cuts, stops):
    """The same where a token is any stretch of the bytes of `text`."""
    raw = text.encode()
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    tokens = [raw[start:stop] for start, stop in pairwise(places)]

    def decode_stretches(ids):
        return decode(b"".join(tokens[one] for one in ids))

    return pieces_of(range(len(tokens)), decode_stretches, stops)


def answer_before_stop(text, stops):
    """What stays, found by reading character by character."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


def test_a_character_of_several_tokens_comes_whole_with_its_last_one():
    pieces, _ = pieces_of("a😀".encode(), decode)
    assert pieces == ["a", "", "", "", "😀", ""]


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=30))
@example(MIXED.encode())
@example(MIXED.encode()[:-2])
@example(b"\xf0\x9f\x98\xe4\xbd\xa0\x80\x80\xff")
def test_the_pieces_joined_are_the_text_also_of_bytes_that_are_none(raw):
    pieces, _ = pieces_of(raw, decode)
    assert "".join(pieces) == decode(raw)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.backend.get_vocab_size() - 1), max_size=30))
def test_the_pieces_joined_are_what_the_tokenizer_makes_of_all_tokens(ids):
    pieces, _ = pieces_of(ids, TOKENIZER.decode)
    assert "".join(pieces) == TOKENIZER.decode(ids)


def test_the_tokenizers_vocabulary_has_parts_of_characters_and_control_tokens():
    texts = [TOKENIZER.decode([token]) for token in range(TOKENIZER.backend.get_vocab_size())]
    assert sum("\N{REPLACEMENT CHARACTER}" in text for text in texts) >= 128 and "<|box_end|>" in texts


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=20))
def test_no_piece_shows_a_replacement_for_a_character_that_is_yet_to_come(text):
    assume("\N{REPLACEMENT CHARACTER}" not in text)
    pieces, _ = pieces_of(text.encode(), decode)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert all(pieces[: len(text)]) or not text.isascii()


def test_a_character_left_incomplete_shows_at_the_end():
    pieces, _ = pieces_of("b😀".encode()[:-1], decode)
    assert pieces == ["b", "", "", "", "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    ("text", "stops", "wanted"),
    [
        ("one. two. three", ["two"], "one. "),
        ("答案。然后", ["。"], "答案"),
        ("hm 😀 hm", ["😀"], "hm "),
        ("stop", ["stop"], ""),
        ("ababac", ["abac"], "ab"),
        ("aaab", ["aab"], "a"),
        ("xabc", ["b", "abc"], "xa"),
        ("xabc", ["bc", "abc"], "x"),
        ("sto", ["stop"], "sto"),
    ],
)
def test_an_answer_ends_before_the_stop_string_that_is_complete_first(text, stops, wanted):
    pieces, has_ended = pieces_of(text.encode(), decode, stops)
    assert "".join(pieces) == wanted and has_ended == (wanted != text)
    assert answer_before_stop(text, stops) == wanted


@settings(derandomize=True, deadline=None)
@given(TEXTS, STOPS, st.lists(st.integers(0, 100)))
def test_the_answer_does_not_depend_on_how_its_text_is_cut_into_tokens(text, stops, cuts):
    pieces, has_ended = pieces_of_cut(text, cuts, stops)
    assert "".join(pieces) == answer_before_stop(text, stops)
    assert has_ended == any(stop in text for stop in stops)


def test_only_what_may_begin_a_stop_string_is_held_back():
    pieces, _ = pieces_of(b"x\n\ny\n", decode, ["\n\n\n", "zz"])
    assert pieces == ["x", "", "", "\n\ny", "", "\n"]
