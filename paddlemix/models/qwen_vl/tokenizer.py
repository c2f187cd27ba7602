"""Qwen-VL's tokenizer: byte pairs from qwen.tiktoken, and images as spans of ids.

An image is `<img>`, the bytes of its path as ids of their own value, `<imgpad>` up to `n_queries`, `</img>`. The span
keeps the image's place; its pixels travel beside the ids, so a path that does not fit is left out of them.

A text is plain text unless the caller names the special tokens that it may hold: whoever wrote it could end a turn or
show an image otherwise. Decoding never fails: ids that are none of this vocabulary's, such as a model's spare rows,
add nothing, and a span that is none is read token by token.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tiktoken

from paddlemix.bounded_json import shown, whole_number
from paddlemix.contract import AddedTokens, NewToken, Piece
from paddlemix.files import read_json_object, write_json
from paddlemix.hub import local_folder
from paddlemix.models.qwen_vl import tags as list_format
from paddlemix.models.qwen_vl.tags import GROUNDING_TAGS, IMAGE_TAGS, IMG, IMG_END, IMG_PAD, History, ImageSpan
from paddlemix.models.qwen_vl.tiktoken_file import Ranks, check_ranks, read_ranks, write_ranks
from paddlemix.processors.batches import ModelInputs, as_tensors, check_choice, padded
from paddlemix.processors.qwen_byte_pairs import WORD_PATTERN
from paddlemix.processors.tokens.files import ADDED_TOKENS_FILE, TOKENIZER_CONFIG_FILE

if TYPE_CHECKING:
    from PIL import Image

VOCABULARY_FILE = "qwen.tiktoken"
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# Of ids for an image, and of spare tokens: published are 256 and 205.
_MOST = 65_536

AllowedSpecial = Literal["all"] | Collection[str]


class QwenTokenizer:
    """Text and images' places to ids, and back.

    Args:
        ranks: the vocabulary; the special tokens' ids follow its ranks.
        settings: the values of tokenizer_config.json. `n_queries` counts the ids between an image's tags,
            `n_extra_tokens` the special tokens without a meaning; where they are missing they are the published
            model's.

    Attributes:
        IMAGE_ST: the tags of images, names and boxes, which a chat reads in a caller's words.
        special_tokens: id by name.
        n_queries: ids between an image's tags.
        padding_side: "left" or "right", where a batch is padded.
        pad_token_id: fills a batch; the end of a text.
        eos_token_id: ends a turn.
    """

    IMAGE_ST = (*GROUNDING_TAGS, *IMAGE_TAGS)
    special_tokens: dict[str, int]
    n_queries: int
    padding_side: str
    pad_token_id: int
    eos_token_id: int

    def __init__(self, ranks: Ranks, settings: dict[str, Any] | None = None) -> None:
        check_ranks(ranks, VOCABULARY_FILE)
        self.ranks = ranks
        self.settings = {**default_settings(), **(settings or {})}
        self.n_queries = _count(self.settings, "n_queries", least=1)
        names = _special_names(_count(self.settings, "n_extra_tokens", least=0))
        self.special_tokens = {name: len(ranks) + place for place, name in enumerate(names)}
        self.padding_side = self.settings.get("padding_side") or "right"
        if self.padding_side not in ("left", "right"):
            raise ValueError(
                f"{TOKENIZER_CONFIG_FILE}: `padding_side` is {shown(self.padding_side)}; expected left or right."
            )
        self._encoding = tiktoken.Encoding(
            VOCABULARY_FILE, pat_str=WORD_PATTERN, mergeable_ranks=ranks, special_tokens=self.special_tokens
        )
        self.eod_id, self.im_start_id, self.im_end_id = map(self.token_id, (END_OF_TEXT, IM_START, IM_END))
        self.img_start_id, self.img_end_id, self.img_pad_id = map(self.token_id, (IMG, IMG_END, IMG_PAD))
        self.pad_token_id, self.eos_token_id = self.eod_id, self.im_end_id

    def __reduce__(self) -> tuple[type[QwenTokenizer], tuple[Ranks, dict[str, Any]]]:
        return type(self), (self.ranks, self.settings)

    def __len__(self) -> int:
        return len(self.ranks) + len(self.special_tokens)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str]) -> QwenTokenizer:
        """Read a checkpoint's qwen.tiktoken, and tokenizer_config.json where there is one.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.

        Returns:
            The tokenizer.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or it has no qwen.tiktoken.
            ValueError: a file is damaged, or adds tokens, which a vocabulary of this kind does not take.
        """
        folder = local_folder(name_or_path)
        ranks = read_ranks(folder / VOCABULARY_FILE)
        settings = read_json_object(folder / TOKENIZER_CONFIG_FILE, missing_ok=True)
        try:
            tokenizer = cls(ranks, settings)
        except ValueError as error:  # which begins with the file's name
            raise ValueError(f"{folder}{os.sep}{error}") from error
        tokenizer._refuse_added_tokens(read_json_object(folder / ADDED_TOKENS_FILE, missing_ok=True), folder)
        return tokenizer

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write qwen.tiktoken and tokenizer_config.json."""
        write_ranks(Path(folder) / VOCABULARY_FILE, self.ranks)
        write_json(Path(folder) / TOKENIZER_CONFIG_FILE, self.settings)

    @property
    def size(self) -> int:
        """The least number that is above all ids."""
        return len(self)

    def choose_added_tokens(self, choice: AddedTokens) -> None:
        """Do nothing: a vocabulary of this kind has no added tokens beside its special ones, which texts never spell.

        Args:
            choice: either.
        """
        del choice

    def add_tokens(self, tokens: Sequence[NewToken]) -> dict[int, list[int]]:
        """Refuse any token, since no program reads a vocabulary of this kind that has grown.

        Args:
            tokens: to add.

        Returns:
            Nothing, where there is nothing to add.

        Raises:
            ValueError: there is.
        """
        if not tokens:
            return {}
        raise ValueError(
            f"`new_tokens` lists {', '.join(one.token for one in tokens[:3])}, but {VOCABULARY_FILE} of Qwen-VL takes "
            f"no others. Write <|extra_0|> to <|extra_{self.settings['n_extra_tokens'] - 1}|> in the records instead, "
            "which it has to spare, and set `allow_control_tokens` to true; or take Qwen2-VL."
        )

    def token_id(self, token: str) -> int:
        """Look up a special token.

        Args:
            token: such as "<|im_end|>".

        Returns:
            Its id.

        Raises:
            ValueError: there is no such special token.
        """
        if token not in self.special_tokens:
            raise ValueError(f"the tokenizer has no token {token}; its tokens are {IM_START}, {IMG} and their kin.")
        return self.special_tokens[token]

    def encode(self, text: str, *, allowed_special: AllowedSpecial = ()) -> list[int]:
        """Encode a text, composed to NFC first.

        Args:
            text: special tokens spelled in it are text, but for those that are allowed.
            allowed_special: names of special tokens, or "all". With `<img>` among them `<img>path</img>` is an
                image's span; that opens no file.

        Returns:
            The ids.

        Raises:
            ValueError: images are allowed and one is not closed, or an allowed name is no special token.
        """
        allowed = frozenset(self.special_tokens if allowed_special == "all" else allowed_special)
        for name in allowed:
            self.token_id(name)
        if IMG not in allowed:
            return self._text_ids(text, allowed)
        stretches = list_format.split_at_images(text)
        return [
            token
            for one in stretches
            for token in (self.image_ids(one.path) if isinstance(one, ImageSpan) else self._text_ids(one, allowed))
        ]

    def image_ids(self, path: str) -> list[int]:
        """Make the span of an image.

        Args:
            path: of the image; without effect on what is read.

        Returns:
            `n_queries` + 2 ids. A path of more than `n_queries` bytes is left out, and padding stands in its place.
        """
        # A path that is no UTF-8 has lone surrogates.
        name = unicodedata.normalize("NFC", path).encode("utf-8", "surrogatepass")
        filled = list(name) if len(name) <= self.n_queries else []
        return [self.img_start_id, *filled, *[self.img_pad_id] * (self.n_queries - len(filled)), self.img_end_id]

    def encode_pieces(
        self, pieces: Iterable[Piece | ImageSpan], *, allowed_special: AllowedSpecial = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode a stretch of a prompt, and tell what each of its ids weighs.

        Neighbouring texts are encoded as one, so that the tokens do not depend on where they were joined; special
        tokens and images stand between texts. Images weigh nothing.

        Args:
            pieces: in their order.
            allowed_special: as `encode` takes it, of the pieces that are text.

        Returns:
            ids int64[L] and their weights float32[L], 0 of what is not learned.
        """
        ids: list[int] = []
        weights: list[float] = []
        for (kind, weight), group in groupby(pieces, key=_kind_and_weight):
            new_ids = self._ids_of_kind(kind, list(group), allowed_special)
            ids += new_ids
            weights += [weight] * len(new_ids)
        return np.array(ids, dtype=np.int64), np.array(weights, dtype=np.float32)

    def decode(
        self,
        ids: int | Sequence[int],
        *,
        skip_control_tokens: bool = False,
        skip_special_tokens: bool = False,
        keep_image_special: bool = False,
        errors: str = "replace",
    ) -> str:
        """Decode ids, images as `<img>path</img>`.

        Args:
            ids: int64[L] too, or one id.
            skip_control_tokens: leave special tokens out; an image's path stays.
            skip_special_tokens: the same, by the field's name.
            keep_image_special: with either of them, keep the tags of names and boxes.
            errors: what becomes of bytes that are no UTF-8, as in `bytes.decode`; they show as U+FFFD.

        Returns:
            The text.
        """
        skips = skip_control_tokens or skip_special_tokens
        kept = {self.token_id(tag) for tag in GROUNDING_TAGS} if keep_image_special else set()
        entries = self._entries(np.atleast_1d(np.asarray(ids, dtype=np.int64)).tolist())
        content = [text for token, text in entries if not skips or token < self.eod_id or token in kept]
        return b"".join(content).decode("utf-8", errors)

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        padding: bool | Literal["longest"] = False,
        padding_side: Literal["left", "right"] | None = None,
        allowed_special: AllowedSpecial = (),
        return_tensors: Literal["pd", "np"] | None = None,
    ) -> ModelInputs:
        """Encode a text or a batch of them.

        Args:
            text: one, or several.
            padding: pad to the longest.
            padding_side: None for the attribute of that name.
            allowed_special: as `encode` takes it.
            return_tensors: "pd" for Paddle's tensors, "np" for NumPy's arrays, None for lists.

        Returns:
            input_ids and attention_mask, int64[B, L] or lists; flat lists for one text without `return_tensors`.

        Raises:
            ValueError: as `encode`, or texts of several lengths are to be one array without padding.
        """
        side = padding_side or self.padding_side
        check_choice("padding_side", side, ("left", "right"))
        check_choice("return_tensors", return_tensors, ("pd", "np", None))
        texts = [text] if isinstance(text, str) else list(text)
        rows = [np.array(self.encode(one, allowed_special=allowed_special), dtype=np.int64) for one in texts]
        if return_tensors is None and not padding:
            lists = {"input_ids": [row.tolist() for row in rows], "attention_mask": [[1] * len(row) for row in rows]}
        else:
            arrays = padded(rows, self.pad_token_id, side, padding=bool(padding))
            if return_tensors is not None:
                return ModelInputs(arrays if return_tensors == "np" else as_tensors(arrays))
            lists = {name: array.tolist() for name, array in arrays.items()}
        return ModelInputs({name: rows[0] for name, rows in lists.items()} if isinstance(text, str) else lists)

    def from_list_format(self, elements: Iterable[list_format.Element]) -> str:
        """Put a prompt together: see `paddlemix.models.qwen_vl.tags.from_list_format`."""
        return list_format.from_list_format(elements)

    def to_list_format(self, text: str) -> list[list_format.Element]:
        """Take a text apart at its tags: see `paddlemix.models.qwen_vl.tags.to_list_format`."""
        return list_format.to_list_format(text)

    def fetch_all_box_with_ref(self, text: str) -> list[list_format.Element]:
        """Read a text's boxes with their names: see `paddlemix.models.qwen_vl.tags.boxes_with_names`."""
        return list_format.boxes_with_names(text)

    def draw_bbox_on_latest_image(self, response: str, history: History | None = None) -> Image.Image | None:
        """Draw an answer's boxes: see `paddlemix.models.qwen_vl.chat.drawing.draw_on_latest_image`."""
        from paddlemix.models.qwen_vl.chat.drawing import (
            draw_on_latest_image,  # here: fonts and plates are needed by no one else
        )

        return draw_on_latest_image(response, history)

    def _refuse_added_tokens(self, said: Mapping[str, Any], folder: Path) -> None:
        """Refuse added tokens of a file that are none of the special ones."""
        if unknown := [text for text, token_id in said.items() if self.special_tokens.get(text) != token_id]:
            listed = ", ".join(shown(text)[1:-1] for text in unknown[:5])
            raise ValueError(
                f"{folder / ADDED_TOKENS_FILE}: {listed} cannot be added to {VOCABULARY_FILE}; expected "
                "its own special tokens with their ids. Take the file away."
            )

    def _text_ids(self, text: str, allowed: Collection[str]) -> list[int]:
        composed = unicodedata.normalize("NFC", text)
        return self._encoding.encode(composed, allowed_special=frozenset(allowed), disallowed_special=())

    def _ids_of_kind(self, kind: str, pieces: list[Any], allowed_special: AllowedSpecial) -> list[int]:
        if kind == "image":
            return [token for piece in pieces for token in self.image_ids(piece.path)]
        if kind == "control":
            return [self.token_id(piece.text) for piece in pieces for _ in range(piece.repeat)]
        return self.encode("".join(piece.text for piece in pieces), allowed_special=allowed_special)

    def _entries(self, ids: list[int]) -> Iterator[tuple[int, bytes]]:
        """Pair each token with its bytes; an image's path is one entry, as if it were a token of the vocabulary."""
        place = 0
        while place < len(ids):
            token, place = ids[place], place + 1
            if 0 <= token < len(self):
                yield token, self._encoding.decode_single_token_bytes(token)
            if token == self.img_start_id and (path := self._path_behind(ids, place)) is not None:
                yield 0, path
                place += self.n_queries

    def _path_behind(self, ids: list[int], place: int) -> bytes | None:
        """Find the path between the image's tag before `place` and the end tag; None where no span stands there."""
        end = place + self.n_queries
        if ids[end : end + 1] != [self.img_end_id]:
            return None
        filled = ids[place:end]
        while filled and filled[-1] == self.img_pad_id:
            filled.pop()
        return bytes(filled) if all(0 <= token < 256 for token in filled) else None


def default_settings() -> dict[str, Any]:
    """Return the published tokenizer_config.json, and what is needed to build smaller tokenizers."""
    return {
        "tokenizer_class": "QWenTokenizer",
        "model_max_length": 8192,
        "clean_up_tokenization_spaces": False,
        "n_queries": 256,
        "n_extra_tokens": 205,
    }


def _special_names(n_extra_tokens: int) -> list[str]:
    """List the special tokens in the order of their ids."""
    extras = [f"<|extra_{number}|>" for number in range(n_extra_tokens)]
    return [END_OF_TEXT, IM_START, IM_END, *extras, *GROUNDING_TAGS, *IMAGE_TAGS]


def _count(settings: dict[str, Any], name: str, *, least: int) -> int:
    value = settings[name]
    if not whole_number(value, least, _MOST):
        raise ValueError(
            f"{TOKENIZER_CONFIG_FILE}: `{name}` is {shown(value)}; expected a whole number, at least {least} and at "
            f"most {_MOST}."
        )
    return value


def _kind_and_weight(piece: Piece | ImageSpan) -> tuple[str, float]:
    if isinstance(piece, ImageSpan):
        return "image", 0.0
    return "control" if piece.control else "text", piece.weight
