"""How answers are written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from paddlemix.generation.published import attributes_of, published_attributes, read_generation_file
from paddlemix.names import GENERATION_FILE


@dataclass(frozen=True)
class GenerationConfig:
    """How an answer is written, and where it ends.

    The settings act one after the other, as in transformers: repetition penalty, min_new_tokens, temperature, top_k,
    top_p. The same settings leave the same tokens to draw among.

    Attributes:
        max_new_tokens: where an answer is cut off at the latest.
        min_new_tokens: tokens before which no end token is chosen; stop strings end an answer at any length.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn.
        top_k: draw among so many of the likeliest, and those that tie with the last of them; 0 for all.
        top_p: draw among the likeliest that together reach this probability.
        repetition_penalty: the logit of every token that stands in the prompt or the answer is divided by it where
            positive, multiplied where negative; 1 changes nothing. Padding does not count as a token of the prompt.
        seed: of the drawing.
        eos_token_ids: tokens that end an answer in place of the tokenizer's own; None for those.
        stop_token_ids: further tokens that end an answer.
        stop_strings: texts that end an answer, which is cut off before them.
        stop_words_ids: sequences of tokens; the end token follows as soon as prompt and answer end with one of them,
            which stays in the answer.
        num_beams: beginnings of an answer that are carried on side by side, to find one that is likelier as a whole; 1
            for no search.
        length_penalty: how the scores of beams are divided by their length: above 0 favours long answers.
        early_stopping: when the search ends, once `num_beams` answers are whole: True at once, False when no open beam
            scores better at its present length, "never" when none could at any length.
    """

    max_new_tokens: int = 512
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 1234
    eos_token_ids: Sequence[int] | None = None
    stop_token_ids: Sequence[int] = ()
    stop_strings: Sequence[str] = ()
    stop_words_ids: Sequence[Sequence[int]] = ()
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self) -> None:
        for name in _RULES:
            if (expected := problem_with(name, getattr(self, name))) is not None:
                raise ValueError(f"`{name}` is {_short(getattr(self, name))}; expected {expected}.")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"`min_new_tokens` is {self.min_new_tokens}; expected at most `max_new_tokens`, {self.max_new_tokens}."
            )
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError(
                f"`num_beams` is {self.num_beams} and `temperature` {self.temperature}; beams are not drawn: set the "
                "temperature to 0 (`do_sample` to false), or `num_beams` to 1."
            )
        object.__setattr__(self, "stop_words_ids", tuple(tuple(ids) for ids in self.stop_words_ids))
        for name in ("eos_token_ids", "stop_token_ids", "stop_strings"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))  # frozen, all of it

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, do_sample: bool | None = None, **overrides: Any
    ) -> GenerationConfig:
        """Read the settings that a checkpoint's generation_config.json asks for.

        What cannot change an answer here is ignored; an unknown key is ignored with a warning.

        Args:
            folder: a local folder; without such a file the defaults of this class hold.
            do_sample: as `from_published` takes it.
            **overrides: as `from_published` takes them.

        Returns:
            The settings.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: the file is damaged, a value is out of range or asks for what is not done here.
            TypeError: an override is none of the attributes.
        """
        path = Path(folder) / GENERATION_FILE
        return cls.from_published(read_generation_file(Path(folder)), path, do_sample=do_sample, **overrides)

    @classmethod
    def from_published(
        cls, values: dict[str, Any], path: Path, *, do_sample: bool | None = None, **overrides: Any
    ) -> GenerationConfig:
        """Take the settings that the values of a generation_config.json ask for, and a caller's.

        Args:
            values: of the file.
            path: how errors call it.
            do_sample: False takes the likeliest token whatever the temperature; True draws, at temperature 1 among the
                50 likeliest where nothing else is said; None leaves it to the file and the temperature.
            **overrides: attributes of this class, which take precedence over the file; None leaves its value. A
                temperature above 0 draws, also where the file says `do_sample: false`, and 0 does not.

        Returns:
            The settings.

        Raises:
            ValueError: a value is out of range or asks for what is not done here, or the temperature that is to draw
                is 0.
            TypeError: an override is none of the attributes.
        """
        attributes = published_attributes(values, path)
        try:
            cls(**attributes)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if do_sample is not None:
            attributes = attributes_of(path, {**values, "do_sample": do_sample})
        given = {name: value for name, value in overrides.items() if value is not None}
        return cls(**{**attributes, **_drawn(do_sample, given)}).checked_to_draw(do_sample)

    def changed(self, *, do_sample: bool | None = None, **overrides: Any) -> GenerationConfig:
        """Take a caller's settings in place of some of these.

        Args:
            do_sample: as `from_published` takes it.
            **overrides: attributes of this class; None leaves the value that there is.

        Returns:
            The settings.

        Raises:
            ValueError: a value is out of range, or the temperature that is to draw is 0.
            TypeError: an override is none of the attributes.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        return replace(self, **_drawn(do_sample, given)).checked_to_draw(do_sample)

    def checked_to_draw(self, do_sample: bool | None) -> GenerationConfig:
        """Return the settings, unless they are to draw at a temperature that draws nothing.

        Args:
            do_sample: as `from_published` takes it.

        Returns:
            The same settings.

        Raises:
            ValueError: they are.
        """
        if do_sample and self.temperature == 0:
            raise ValueError("`do_sample` is True, but `temperature` is 0, which draws nothing; set it above 0.")
        return self

    def end_token_ids(self, default: Sequence[int]) -> frozenset[int]:
        """Gather all tokens that end an answer; `default` are the tokenizer's own."""
        return frozenset([*self._own_ends(default), *self.stop_token_ids])

    def stop_words_end(self, default: Sequence[int]) -> int | None:
        """Find the end token that follows stop words, the first there is; None where there are no stop words.

        Args:
            default: the tokenizer's own end tokens.

        Returns:
            The token.

        Raises:
            ValueError: there are stop words, but no end token.
        """
        own = self._own_ends(default)
        if self.stop_words_ids and not own:
            raise ValueError(
                "`stop_words_ids` end an answer with the end token, but none is known: set `eos_token_ids`. Single "
                "tokens can be given as `stop_token_ids`, which need none."
            )
        return own[0] if self.stop_words_ids else None

    def _own_ends(self, default: Sequence[int]) -> Sequence[int]:
        return default if self.eos_token_ids is None else self.eos_token_ids


# What 32 bits hold, as ids and counts of tokens do; a seed may have 64.
_MOST = 2**31 - 1
# Each beam takes as much memory as an answer does.
_MOST_BEAMS = 1024
# What ends an answer is looked for after each of its tokens.
_MOST_STOPS, _LONGEST_STOP = 1000, 1000
_STOPS = f"none empty, at most {_MOST_STOPS} of at most {_LONGEST_STOP}"


def problem_with(name: str, value: Any) -> str | None:
    """Say what was expected of a setting in place of a value; None where the value is right."""
    is_right, expected = _RULES[name]
    return None if is_right(value) else expected


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _drawn(do_sample: bool | None, overrides: dict[str, Any]) -> dict[str, Any]:
    return {**overrides, "temperature": 0.0} if do_sample is False else overrides


def _is_whole(lowest: int, most: int = _MOST) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and lowest <= int(value) <= most


def _is_finite(value: Any) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _are_ids(value: Any) -> bool:
    return isinstance(value, Sequence) and all(map(_is_whole(0), value))


def _are_texts(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return (
        is_list
        and len(value) <= _MOST_STOPS
        and all(isinstance(text, str) and 0 < len(text) <= _LONGEST_STOP for text in value)
    )


def _are_sequences(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) <= _MOST_STOPS
        and all(_are_ids(ids) and 0 < len(ids) <= _LONGEST_STOP for ids in value)
    )


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (_is_whole(1), f"a whole number, at least 1 and at most {_MOST}"),
    "min_new_tokens": (_is_whole(0), f"a whole number, at least 0 and at most {_MOST}"),
    "temperature": (lambda value: _is_finite(value) and value >= 0, "a number, at least 0"),
    "top_k": (_is_whole(0), f"a whole number, at least 0 and at most {_MOST}"),
    "top_p": (lambda value: _is_finite(value) and 0 < value <= 1, "a number above 0 and at most 1"),
    "repetition_penalty": (lambda value: _is_finite(value) and value > 0, "a number above 0"),
    "seed": (_is_whole(0, 2**63 - 1), "a whole number, at least 0"),
    "eos_token_ids": (lambda value: value is None or _are_ids(value), "a list of token ids"),
    "stop_token_ids": (_are_ids, "a list of token ids"),
    "stop_strings": (_are_texts, f"a list of texts, {_STOPS} characters"),
    "stop_words_ids": (_are_sequences, f"a list of lists of token ids, {_STOPS}"),
    "num_beams": (_is_whole(1, _MOST_BEAMS), f"a whole number, at least 1 and at most {_MOST_BEAMS}"),
    "length_penalty": (_is_finite, "a number"),
    "early_stopping": (lambda value: isinstance(value, bool) or value == "never", 'true, false or "never"'),
}
