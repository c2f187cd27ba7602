"""Text to tokens: the Rust tokenizer, with control tokens and a user's text kept apart.

Who wrote a text decides about control tokens, those of the family's own list: spelled in somebody's words they are
text. All other tokens that a checkpoint has added are words of its vocabulary, and are read wherever they stand, unless
`choose_added_tokens` says otherwise, as for the words of strangers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
from tokenizers import AddedToken, Tokenizer

from paddlemix.bounded_json import shown, without_surrogates
from paddlemix.contract import AddedTokens, NewToken, Piece
from paddlemix.files import read_json_object, replacing, write_json
from paddlemix.hub import local_folder
from paddlemix.processors.tokens.files import (
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    add_control_tokens,
    add_named,
    add_said,
    check_control_tokens,
    check_named,
    named_specials,
    read_tokenizer,
    said_beside,
    with_named_specials,
)
from paddlemix.processors.tokens.reading import reader, spellings

if TYPE_CHECKING:
    from typing_extensions import Self

# Neighbours that differ in one of these are encoded each for themselves. A function in C: it is asked of every piece.
_ENCODED_ALIKE = attrgetter("control", "answer", "weight")


class FastTokenizer:
    """A tokenizer.json, run by the Rust library; a family's class says what its checkpoints leave unsaid.

    Args:
        tokenizer: holds the vocabulary and the control tokens.
        settings: the values of tokenizer_config.json, written back as they are; None for the family's.
        added_tokens: what texts that spell the checkpoint's own added tokens hold.

    Attributes:
        default_settings: the family's tokenizer_config.json, which names at least `pad_token` and `eos_token`.
        control_tokens: the family's, in the order of their ids; in texts they are letters.
        published_words: other added tokens of the family's published vocabularies, in which tools and thoughts are
            written; they are read in all texts.
        backend: holds the vocabulary and all added tokens, as they are saved.
        added_tokens: as given, or chosen since.
        pad_token_id: fills a batch.
        eos_token_id: ends an answer.
    """

    default_settings: ClassVar[Mapping[str, Any]]
    control_tokens: ClassVar[tuple[str, ...]]
    published_words: ClassVar[tuple[str, ...]] = ()
    backend: Tokenizer
    added_tokens: AddedTokens
    pad_token_id: int
    eos_token_id: int

    def __init__(
        self, tokenizer: Tokenizer, settings: dict[str, Any] | None = None, added_tokens: AddedTokens = "read"
    ) -> None:
        self.backend = tokenizer
        self.settings = settings or dict(self.default_settings)
        self.added_tokens = added_tokens
        self._control_ids: dict[str, int] = {}
        self.pad_token_id, self.eos_token_id = map(self._named_id, ("pad_token", "eos_token"))

    def __reduce__(self) -> tuple[type[FastTokenizer], tuple[Tokenizer, dict[str, Any], AddedTokens]]:
        # A copied or pickled backend forgets `encode_special_tokens`, so that the reader has to be made again.
        return type(self), (self.backend, self.settings, self.added_tokens)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str]) -> Self:
        """Read a checkpoint's tokenizer files.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.

        Returns:
            The tokenizer.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or it has no tokenizer.json and none of the
                files that the family had before.
            ValueError: a file is damaged, files give a token two ids or two tokens one, or a control token is missing.
        """
        folder = local_folder(name_or_path)
        settings = read_json_object(folder / TOKENIZER_CONFIG_FILE, missing_ok=True)
        backend = cls._read_backend(folder, settings)
        check_control_tokens(backend, cls.control_tokens, folder)
        add_control_tokens(backend, cls.control_tokens)  # special to the library, whatever the files call them
        check_named(settings, ("pad_token", "eos_token"), folder)
        ends = (_token_text(settings.get(name)) for name in ("pad_token", "eos_token"))
        missing = {text for text in ends if text and backend.token_to_id(text) is None}  # refused when it is looked up
        add_named(backend, [one for one in named_specials(folder, settings) if one.content not in missing])
        try:
            tokenizer = cls(backend, settings)
        except ValueError as error:
            raise ValueError(f"{folder / TOKENIZER_CONFIG_FILE}: {error}") from error
        tokenizer.check_texts(folder)
        return tokenizer

    def check_texts(self, folder: Path) -> None:
        """Make sure that no text becomes a control token, by texts that spell each of them.

        Args:
            folder: of the checkpoint.

        Raises:
            ValueError: one does.
        """
        reserved = {self.token_id(name) for name in self.control_tokens}
        texts = [text for name in self.control_tokens for text in spellings(name)]
        for text, encoded in zip(texts, self._reader.encode_batch_fast(texts, add_special_tokens=False), strict=True):
            if not reserved.isdisjoint(encoded.ids):
                raise ValueError(
                    f"{folder}: its tokenizer makes a control token of the text {shown(text)}, so that anyone who "
                    "writes it could end a turn. Take the tokenizer's files of the published checkpoint."
                )

    def save_pretrained(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        with replacing(folder / TOKENIZER_FILE) as beside:
            self.backend.save(str(beside))
        write_json(folder / TOKENIZER_CONFIG_FILE, self.settings)

    def token_id(self, token: str) -> int:
        """Look up a control token.

        Args:
            token: such as "<|im_end|>".

        Returns:
            Its id.

        Raises:
            ValueError: the vocabulary has no such token.
        """
        if token in self._control_ids:
            return self._control_ids[token]
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise ValueError(
                f"the tokenizer has no token {shown(token)[1:-1]}; `model_name_or_path` holds another model's "
                "tokenizer."
            )
        self._control_ids[token] = token_id
        return token_id

    @property
    def size(self) -> int:
        """The least number that is above all ids."""
        pieces = self.backend.get_vocab_size(with_added_tokens=False)
        return max(pieces, *(token_id + 1 for token_id in self.backend.get_added_tokens_decoder()))

    @property
    def own_tokens(self) -> tuple[str, ...]:
        """The added tokens that are neither control tokens nor published words, in the order of their ids."""
        return tuple(token.content for token in self._own_added())

    @property
    def own_special_tokens(self) -> tuple[str, ...]:
        """Those of `own_tokens` that are special, as tokens are that open and end turns."""
        return tuple(token.content for token in self._own_added() if token.special)

    def choose_added_tokens(self, choice: AddedTokens) -> None:
        """Read the checkpoint's own added tokens in texts from now on, or leave them letters.

        Args:
            choice: "text" for the words of strangers.

        Raises:
            ValueError: there is no such choice.
        """
        if choice not in get_args(AddedTokens):
            raise ValueError(f"`added_tokens` is {choice!r}; expected one of {', '.join(get_args(AddedTokens))}.")
        self.added_tokens = choice
        self.__dict__.pop("_reader", None)

    def add_tokens(self, tokens: Sequence[NewToken]) -> dict[int, list[int]]:
        """Add tokens behind all others.

        Args:
            tokens: those that the vocabulary has already stay as they are.

        Returns:
            By the id of each token, known ones too, the ids of the pieces that its text is cut to without it.
        """
        letters = reader(self.backend, lambda _: True)
        added = [one for one in tokens if self.backend.token_to_id(one.token) is None]
        pieces = {one.token: letters.encode(one.token, add_special_tokens=False).ids for one in tokens}
        self.backend.add_tokens([AddedToken(one.token, special=one.special) for one in added])
        self.__dict__.pop("_reader", None)
        if special := [one.token for one in added if one.special]:
            self.settings = with_named_specials(self.settings, special)
        return {self.token_id(text): ids for text, ids in pieces.items()}

    def encode(self, text: str) -> list[int]:
        """Encode plain text; control tokens spelled in it are text.

        Args:
            text: the text.

        Returns:
            The ids.

        Raises:
            ValueError: it holds half of a surrogate pair, as only Python's texts can.
        """
        try:
            return self._reader.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError) as error:
            if not isinstance(text, str) or without_surrogates(text):
                raise
            raise ValueError(f"the text {shown(text)} holds half of a surrogate pair, which is no text.") from error

    def encode_pieces(self, pieces: Iterable[Piece]) -> tuple[np.ndarray, np.ndarray]:
        """Encode a prompt, and tell what each of its ids weighs.

        Neighbouring stretches of text are encoded as one, so that the tokens do not depend on where they were joined.
        Only answers and what else is learned begin a token of their own: when a model answers, the prompt before it is
        tokenized already.

        Args:
            pieces: in their order.

        Returns:
            ids int64[L] and their weights float32[L], 0 of what is not learned.
        """
        ids: list[int] = []
        weights: list[float] = []
        for (is_control, _, weight), group in groupby(pieces, key=_ENCODED_ALIKE):
            new_ids = self._ids(list(group), is_control)
            ids += new_ids
            weights += [weight] * len(new_ids)
        return np.array(ids, dtype=np.int64), np.array(weights, dtype=np.float32)

    def count_pieces(self, prompts: Sequence[Iterable[Piece]]) -> list[tuple[int, int]]:
        """Count the ids that `encode_pieces` gives for each of many prompts, and the learned ones behind the first.

        Args:
            prompts: pieces in their order; those of one set share many of their texts, which are encoded once.

        Returns:
            Ids and learned ids of each prompt.
        """
        split = [_stretches(pieces) for pieces in prompts]
        texts = list({stretch for stretches in split for stretch, _ in stretches if isinstance(stretch, str)})
        encoded = self._reader.encode_batch_fast(texts, add_special_tokens=False)
        lengths = dict(zip(texts, map(len, encoded), strict=True))
        counts = (
            [(lengths[stretch] if isinstance(stretch, str) else stretch, learned) for stretch, learned in stretches]
            for stretches in split
        )
        return [_sums(one) for one in counts]

    def decode(self, ids: Sequence[int], *, skip_control_tokens: bool = False) -> str:
        """Decode ids, int64[L] too; broken UTF-8 at the end shows as U+FFFD.

        Added tokens are shown; `skip_control_tokens` leaves the special ones among them out.
        """
        return self.backend.decode(list(ids), skip_special_tokens=skip_control_tokens)

    @classmethod
    def _read_backend(cls, folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
        """Read vocabulary and added tokens, from whichever files have them."""
        path, said = said_beside(folder, settings)
        if (folder / TOKENIZER_FILE).is_file():
            backend = read_tokenizer(folder / TOKENIZER_FILE, cls.control_tokens)
        else:
            backend = cls._read_vocabulary(folder)
            if not said:
                add_control_tokens(backend, cls.control_tokens)
        add_said(backend, said, path)
        return backend

    @classmethod
    def _read_vocabulary(cls, folder: Path) -> Tokenizer:
        """Make a tokenizer, without added tokens, of a checkpoint from before tokenizer.json, where there are such."""
        raise FileNotFoundError(f"{folder}: no {TOKENIZER_FILE}.")

    @cached_property
    def _reader(self) -> Tokenizer:
        """Encodes texts; made when it is first needed, since a large vocabulary takes a second."""
        return reader(self.backend, self._stays_text)

    def _stays_text(self, token: AddedToken) -> bool:
        """Tell whether an added token is letters in a text."""
        is_own = token.content not in self.published_words
        return token.content in self.control_tokens or (self.added_tokens == "text" and is_own)

    def _own_added(self) -> list[AddedToken]:
        known = {*self.control_tokens, *self.published_words}
        added = sorted(self.backend.get_added_tokens_decoder().items(), key=lambda one: one[0])
        return [token for _, token in added if token.content not in known]

    def _named_id(self, name: str) -> int:
        """Look up the token that the settings name, or else the family's."""
        return self.token_id(_token_text(self.settings.get(name)) or self.default_settings[name])

    def _ids(self, pieces: list[Piece], are_control: bool) -> list[int]:
        if are_control:
            return [token for piece in pieces for token in [self.token_id(piece.text)] * piece.repeat]
        return self.encode("".join(piece.text for piece in pieces))


def _stretches(pieces: Iterable[Piece]) -> list[tuple[str | int, bool]]:
    """Join texts that are encoded as one, and count control tokens in a row; each with whether it is learned."""
    found: list[tuple[bool, list[Any], bool]] = []
    before = None
    # Unpacked, since this is done for every piece of every record: names take three times as long.
    for text, is_control, weight, repeat, is_answer in pieces:
        alike = is_control, is_answer, weight
        if alike != before:
            before = alike
            found.append((is_control, [], weight > 0))
        found[-1][1].append(repeat if is_control else text)
    return [(sum(parts) if is_control else "".join(parts), learned) for is_control, parts, learned in found]


def _sums(counts: list[tuple[int, bool]]) -> tuple[int, int]:
    """Sum up tokens in all, and learned ones; nothing predicts the first token."""
    first_is_learned = next((learned for count, learned in counts if count), False)
    return sum(count for count, _ in counts), sum(count for count, learned in counts if learned) - first_is_learned


def _token_text(token: str | dict[str, Any] | None) -> str | None:
    """Return the text of a token of tokenizer_config.json, which gives that or all its fields."""
    return token["content"] if isinstance(token, dict) else token
