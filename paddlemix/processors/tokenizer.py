"""Text to tokens: the Rust tokenizer, with control tokens and a user's text kept apart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tokenizers import Tokenizer

from paddlemix.contract import Piece
from paddlemix.files import replacing, write_json
from paddlemix.hub import local_folder

if TYPE_CHECKING:
    from typing_extensions import Self

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"


class FastTokenizer:
    """A tokenizer.json, run by the Rust library; a family's class says what its checkpoints leave unsaid.

    Args:
        tokenizer: holds the vocabulary and the control tokens.
        settings: the values of tokenizer_config.json, written back as they are; None for the family's.

    Attributes:
        default_settings: the family's tokenizer_config.json, which names at least `pad_token` and `eos_token`.
        pad_token_id: fills a batch.
        eos_token_id: ends an answer.
    """

    default_settings: ClassVar[Mapping[str, Any]]
    pad_token_id: int
    eos_token_id: int

    def __init__(self, tokenizer: Tokenizer, settings: dict[str, Any] | None = None) -> None:
        self.backend = tokenizer
        self.settings = settings or dict(self.default_settings)
        # Control tokens spelled out in somebody's text stay text; control tokens go in by id.
        self.backend.encode_special_tokens = True
        self._control_ids: dict[str, int] = {}
        self.pad_token_id, self.eos_token_id = map(self._named_id, ("pad_token", "eos_token"))

    def __reduce__(self) -> tuple[type[FastTokenizer], tuple[Tokenizer, dict[str, Any]]]:
        # A copied or pickled backend forgets `encode_special_tokens`, so that __init__ has to set it again.
        return type(self), (self.backend, self.settings)

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
        """
        folder = local_folder(name_or_path)
        settings_path = folder / TOKENIZER_CONFIG_FILE
        settings = json.loads(settings_path.read_text("utf-8")) if settings_path.is_file() else None
        if (folder / TOKENIZER_FILE).is_file():
            return cls(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), settings)
        return cls(cls._read_other_files(folder), settings)

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
                f"the tokenizer has no token {token}; `model_name_or_path` holds another model's tokenizer."
            )
        self._control_ids[token] = token_id
        return token_id

    def encode(self, text: str) -> list[int]:
        """Encode plain text; control tokens spelled in it are text."""
        return self.backend.encode(text, add_special_tokens=False).ids

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
        for (is_control, _, weight), group in groupby(pieces, key=_encoded_alike):
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
        encoded = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        lengths = dict(zip(texts, map(len, encoded), strict=True))
        counts = (
            [(lengths[stretch] if isinstance(stretch, str) else stretch, learned) for stretch, learned in stretches]
            for stretches in split
        )
        return [_sums(one) for one in counts]

    def decode(self, ids: Sequence[int], *, skip_control_tokens: bool = False) -> str:
        """Decode ids, int64[L] too; broken UTF-8 at the end shows as U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_control_tokens)

    @classmethod
    def _read_other_files(cls, folder: Path) -> Tokenizer:
        """Make a tokenizer of a checkpoint from before tokenizer.json, where the family has such."""
        raise FileNotFoundError(f"{folder}: no {TOKENIZER_FILE}.")

    def _named_id(self, name: str) -> int:
        """Look up the token that the settings name, or else the family's."""
        return self.token_id(_token_text(self.settings.get(name)) or self.default_settings[name])

    def _ids(self, pieces: list[Piece], are_control: bool) -> list[int]:
        if are_control:
            return [token for piece in pieces for token in [self.token_id(piece.text)] * piece.repeat]
        return self.encode("".join(piece.text for piece in pieces))


def _encoded_alike(piece: Piece) -> tuple[bool, bool, float]:
    """Tell apart neighbours that are encoded each for themselves."""
    return piece.control, piece.answer, piece.weight


def _stretches(pieces: Iterable[Piece]) -> list[tuple[str | int, bool]]:
    """Join texts that are encoded as one, and count control tokens in a row; each with whether it is learned."""
    found: list[tuple[str | int, bool]] = []
    for (is_control, _, weight), group in groupby(pieces, key=_encoded_alike):
        if is_control:
            found.append((sum(piece.repeat for piece in group), weight > 0))
        else:
            found.append(("".join([piece.text for piece in group]), weight > 0))
    return found


def _sums(counts: list[tuple[int, bool]]) -> tuple[int, int]:
    """Sum up tokens in all, and learned ones; nothing predicts the first token."""
    first_is_learned = next((learned for count, learned in counts if count), False)
    return sum(count for count, _ in counts), sum(count for count, learned in counts if learned) - first_is_learned


def _token_text(token: str | dict[str, Any] | None) -> str | None:
    """Return the text of a token of tokenizer_config.json, which gives that or all its fields."""
    return token["content"] if isinstance(token, dict) else token
