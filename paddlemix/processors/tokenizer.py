"""Text to tokens: the Rust tokenizer, with control tokens and a user's text kept apart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from paddlemix.contract import Piece
from paddlemix.files import replacing, write_json
from paddlemix.hub import local_folder

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
# How Qwen2 cuts text before its byte pairs are merged: contractions, words, single digits, punctuation, white space.
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# In the order of their ids, which follow the vocabulary's.
CONTROL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


class Qwen2Tokenizer:
    """The byte-level BPE of Qwen2, from a tokenizer.json or from vocab.json and merges.txt.

    Args:
        tokenizer: holds the vocabulary and the control tokens.
        settings: the values of tokenizer_config.json, written back as they are.
    """

    def __init__(self, tokenizer: Tokenizer, settings: dict[str, Any] | None = None) -> None:
        self.backend = tokenizer
        self.settings = settings or default_settings()
        # Control tokens spelled out in somebody's text stay text; control tokens go in by id.
        self.backend.encode_special_tokens = True
        self._control_ids: dict[str, int] = {}
        self.pad_token_id = self.token_id(_token_text(self.settings.get("pad_token")) or "<|endoftext|>")
        self.eos_token_id = self.token_id(_token_text(self.settings.get("eos_token")) or "<|im_end|>")

    def __reduce__(self) -> tuple[type[Qwen2Tokenizer], tuple[Tokenizer, dict[str, Any]]]:
        # A copied or pickled backend forgets `encode_special_tokens`, so that __init__ has to set it again.
        return type(self), (self.backend, self.settings)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str]) -> Qwen2Tokenizer:
        """Read a checkpoint's tokenizer files.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.

        Returns:
            The tokenizer.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or neither tokenizer.json nor vocab.json with
                merges.txt are there.
        """
        folder = local_folder(name_or_path)
        settings_path = folder / TOKENIZER_CONFIG_FILE
        settings = json.loads(settings_path.read_text("utf-8")) if settings_path.is_file() else None
        if (folder / TOKENIZER_FILE).is_file():
            return cls(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), settings)
        vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
        if not (vocabulary.is_file() and merges.is_file()):
            raise FileNotFoundError(f"{folder}: no {TOKENIZER_FILE}, and no vocab.json with merges.txt.")
        tokenizer = untrained_tokenizer(BPE.from_file(str(vocabulary), str(merges)))
        add_control_tokens(tokenizer)
        return cls(tokenizer, settings)

    def save_pretrained(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        with replacing(folder / TOKENIZER_FILE) as beside:
            self.backend.save(str(beside))
        write_json(folder / TOKENIZER_CONFIG_FILE, self.settings)

    def token_id(self, token: str) -> int:
        """The id of a control token.

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
        """Ids of plain text; control tokens spelled in it are text."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_pieces(self, pieces: Iterable[Piece]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a prompt, and which of them are trained.

        Neighbouring stretches of text are encoded as one, so that the tokens do not depend on where they were joined.
        Only trained text begins a token of its own: when a model answers, the prompt before it is tokenized already.

        Args:
            pieces: in their order.

        Returns:
            ids int64[L] and trained bool[L].
        """
        ids: list[int] = []
        trained: list[bool] = []
        for (is_control, is_trained), group in groupby(pieces, key=lambda piece: (piece.control, piece.trained)):
            new_ids = self._ids(list(group), is_control)
            ids += new_ids
            trained += [is_trained] * len(new_ids)
        return np.array(ids, dtype=np.int64), np.array(trained, dtype=bool)

    def count_pieces(self, prompts: Sequence[Iterable[Piece]]) -> list[tuple[int, int]]:
        """How many ids `encode_pieces` gives for each of many prompts, and how many behind the first are trained.

        Args:
            prompts: pieces in their order; those of one set share many of their texts, which are encoded once.

        Returns:
            Ids and trained ids of each prompt.
        """
        split = [_stretches(pieces) for pieces in prompts]
        texts = list({stretch for stretches in split for stretch, _ in stretches if isinstance(stretch, str)})
        encoded = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        lengths = dict(zip(texts, map(len, encoded), strict=True))
        counts = (
            [(lengths[stretch] if isinstance(stretch, str) else stretch, trained) for stretch, trained in stretches]
            for stretches in split
        )
        return [_sums(one) for one in counts]

    def decode(self, ids: Sequence[int], *, skip_control_tokens: bool = False) -> str:
        """The text of ids; broken UTF-8 at the end shows as U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_control_tokens)

    def _ids(self, pieces: list[Piece], are_control: bool) -> list[int]:
        if are_control:
            return [token for piece in pieces for token in [self.token_id(piece.text)] * piece.repeat]
        return self.encode("".join(piece.text for piece in pieces))


def _stretches(pieces: Iterable[Piece]) -> list[tuple[str | int, bool]]:
    """Texts that are encoded as one, numbers of control tokens in a row, and whether they are trained."""
    found: list[tuple[str | int, bool]] = []
    for (is_control, is_trained), group in groupby(pieces, key=lambda piece: (piece.control, piece.trained)):
        if is_control:
            found.append((sum(piece.repeat for piece in group), is_trained))
        else:
            found.append(("".join([piece.text for piece in group]), is_trained))
    return found


def _sums(counts: list[tuple[int, bool]]) -> tuple[int, int]:
    """Tokens in all, and trained ones; nothing predicts the first token."""
    first_is_trained = next((trained for count, trained in counts if count), False)
    return sum(count for count, _ in counts), sum(count for count, trained in counts if trained) - first_is_trained


def untrained_tokenizer(model: BPE) -> Tokenizer:
    """Qwen2's normaliser, pre-tokenizer and decoder round a byte-pair model."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = NFC()
    tokenizer.pre_tokenizer = PreTokenizers(
        [Split(Regex(WORD_PATTERN), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


def add_control_tokens(tokenizer: Tokenizer) -> None:
    """Give the control tokens the ids behind the vocabulary."""
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])


def default_settings() -> dict[str, Any]:
    """tokenizer_config.json as the published Qwen2-VL has it, as far as other libraries need it."""
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": list(CONTROL_TOKENS[1:]),
        "model_max_length": 32768,
        "clean_up_tokenization_spaces": False,
    }


def _token_text(token: str | dict[str, Any] | None) -> str | None:
    """A token of tokenizer_config.json, which gives its text or all its fields."""
    return token["content"] if isinstance(token, dict) else token
