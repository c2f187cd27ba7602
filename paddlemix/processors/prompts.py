"""The processor as the field calls it: messages to a rendered text, texts and pictures to a padded batch, ids to texts.

A rendered text is read as what it is: a control token in it is one, whoever wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from paddlemix.conversation import Video
from paddlemix.processors.chat_template import ChatTemplate, template_pieces
from paddlemix.processors.image import Qwen2VLImageProcessor
from paddlemix.processors.media import Grid, MediaReader
from paddlemix.processors.picture import open_picture, upright
from paddlemix.processors.text import Piece, Qwen2Tokenizer
from paddlemix.processors.video_patches import Qwen2VLVideoProcessor

IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"

Messages = list[dict[str, Any]]
PictureSource = str | os.PathLike[str] | Image.Image
VideoSource = str | os.PathLike[str] | Sequence[str] | Video
CutUp = tuple[Grid, np.ndarray]


class ModelInputs(dict[str, Any]):
    """A batch by name, whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"the batch has no `{name}`; it has {', '.join(self)}.") from error


class PromptCalls:
    """`apply_chat_template`, the call, and `batch_decode`, for a processor that has the attributes below.

    Attributes:
        tokenizer: encodes the texts.
        image_processor: cuts pictures.
        video_processor: cuts videos.
        chat_template: renders messages.
        decode: the text of ids.
    """

    tokenizer: Qwen2Tokenizer
    image_processor: Qwen2VLImageProcessor
    video_processor: Qwen2VLVideoProcessor
    chat_template: ChatTemplate
    decode: Callable[..., str]

    def apply_chat_template(
        self,
        messages: Messages | list[Messages],
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        add_vision_id: bool = False,
        return_dict: bool = False,
        **call: Any,
    ) -> Any:
        """Render messages as the model was trained to read them.

        Words that are rendered into a text lose their protection: whoever writes `<|im_end|>` into a message ends the
        turn. `Conversation` with `encode` and `encode_prompt` keeps words and control tokens apart.

        Args:
            messages: `{"role": ..., "content": ...}` each; a content is a string, or parts such as `{"type": "image",
                "image": path or PIL picture}`, `{"type": "video", "video": path}` and `{"type": "text", "text": ...}`.
                A list of such lists is a batch.
            tokenize: give ids in place of text, the pictures and videos read from the messages.
            add_generation_prompt: end with the opening of an assistant's turn.
            add_vision_id: number the pictures and videos ("Picture 1: ").
            return_dict: with `tokenize`, give the whole batch, as the call does.
            **call: with `tokenize`, arguments of the call such as `return_tensors`.

        Returns:
            The text, or a batch's list of texts; with `tokenize` the input_ids int64[B, L], or all of the batch.

        Raises:
            TypeError: arguments of the call, or `return_dict`, without `tokenize`.
            ValueError: with `tokenize`, as the call.
        """
        is_batch = bool(messages) and isinstance(messages[0], list)
        chats: list[Messages] = messages if is_batch else [messages]  # type: ignore[assignment, list-item]
        texts = [
            self.chat_template.render(chat, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id)
            for chat in chats
        ]
        if tokenize:
            shown = [list(_shown(chats, kind)) for kind in ("image", "video")]
            batch = self(text=texts, images=shown[0], videos=shown[1], **call)
            return batch if return_dict else batch["input_ids"]
        if call or return_dict:
            names = [*call, *(["return_dict"] if return_dict else [])]
            raise TypeError(f"`apply_chat_template` got {', '.join(names)}, which goes with `tokenize=True` only.")
        return texts if is_batch else texts[0]

    def __call__(
        self,
        images: PictureSource | Sequence[Any] | None = None,
        text: str | Sequence[str] | None = None,
        videos: VideoSource | Sequence[VideoSource] | None = None,
        *,
        padding: bool = True,
        padding_side: Literal["left", "right"] | None = None,
        return_tensors: Literal["pd", "np"] = "pd",
    ) -> ModelInputs:
        """Encode rendered texts with what they show.

        A control token spelled in `text` is that control token: rendering keeps no one's words apart from the
        template's. For texts of strangers use `Conversation` with `encode` and `encode_prompt`, which do.

        Args:
            images: paths, addresses or PIL pictures in the order of the texts' `<|image_pad|>`, one for each; lists of
                them, one for each text, are taken one behind the other.
            text: one rendered prompt or several.
            videos: paths, addresses, lists of frames' paths, or `Video`s, in the order of the texts' `<|video_pad|>`.
            padding: pad to the longest text; False takes texts of one length only.
            padding_side: None for the tokenizer's own setting, and "left" where it has none: answers begin at the end.
            return_tensors: "pd" for Paddle's tensors, "np" for NumPy's arrays.

        Returns:
            input_ids and attention_mask int64[B, L]; pixel_values float32[patches, values] and image_grid_thw
            int64[pictures, 3] where there are pictures, pixel_values_videos and video_grid_thw where there are videos.

        Raises:
            ValueError: placeholders and pictures or videos are not as many, one cannot be read, texts differ in length
                without padding, or an argument has a value that it cannot have.
        """
        side = padding_side or self.tokenizer.settings.get("padding_side", "left")
        _check_choice("padding_side", side, ("left", "right"))
        _check_choice("return_tensors", return_tensors, ("pd", "np"))
        pieces = [list(template_pieces(one)) for one in _texts(text)]
        media = {IMAGE_PAD: _flat(images), VIDEO_PAD: _as_list(videos)}
        _check_counts(pieces, media)
        cut_up = {
            IMAGE_PAD: [self._cut_picture(picture) for picture in media[IMAGE_PAD]],
            VIDEO_PAD: [self._cut_video(video) for video in media[VIDEO_PAD]],
        }
        rows = self._encode(pieces, {pad: [grid for grid, _ in found] for pad, found in cut_up.items()})
        batch = _padded(rows, self.tokenizer.pad_token_id, side, padding=padding)
        batch |= _joined("pixel_values", "image_grid_thw", cut_up[IMAGE_PAD])
        batch |= _joined("pixel_values_videos", "video_grid_thw", cut_up[VIDEO_PAD])
        return ModelInputs(batch if return_tensors == "np" else _as_tensors(batch))

    def batch_decode(
        self, ids: Iterable[Any], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> list[str]:
        """The texts of rows of ids.

        Args:
            ids: int64[B, L], or a list of int64[L].
            skip_special_tokens: leave control tokens out.
            clean_up_tokenization_spaces: False; the field's calls name it, and this vocabulary has nothing to clean up.

        Returns:
            A text for each row.

        Raises:
            ValueError: `clean_up_tokenization_spaces` is true.
        """
        if clean_up_tokenization_spaces:
            raise ValueError("`clean_up_tokenization_spaces` is True, which would change texts; expected False.")
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in ids]

    def _encode(self, texts: list[list[Piece]], grids: dict[str, list[Grid]]) -> list[np.ndarray]:
        """Ids int64[L] of each text, its placeholders repeated."""
        remaining = {pad: iter(of_kind) for pad, of_kind in grids.items()}
        expanded = (expand_placeholders(pieces, remaining, self.image_processor.tokens)[0] for pieces in texts)
        return [self.tokenizer.encode_pieces(pieces)[0] for pieces in expanded]

    def _cut_picture(self, source: PictureSource) -> CutUp:
        picture = upright(source) if isinstance(source, Image.Image) else open_picture(_path("images", source))
        return self.image_processor.grid(*picture.size), self.image_processor.patches(picture)

    def _cut_video(self, source: VideoSource) -> CutUp:
        return MediaReader(self.image_processor, self.video_processor).read_video(_video(source))


def expand_placeholders(
    pieces: Iterable[Piece], remaining: dict[str, Iterator[Grid]], tokens: Callable[[Grid], int]
) -> tuple[list[Piece], list[Grid]]:
    """Repeat each picture's and video's placeholder once a merged patch.

    Args:
        pieces: of one prompt.
        remaining: by placeholder, the grids that are still to be shown; those of this prompt are taken.
        tokens: how many tokens a grid becomes.

    Returns:
        The pieces, and the grids of pictures and videos in the order of the prompt.
    """
    expanded, order = [], []
    for piece in pieces:
        if piece.control and piece.text in remaining:
            order.append(next(remaining[piece.text]))
            piece = replace(piece, repeat=tokens(order[-1]))
        expanded.append(piece)
    return expanded, order


def count_placeholders(pieces: Iterable[Piece], pad: str) -> int:
    """How often the control token `pad` stands in a prompt."""
    return sum(piece.control and piece.text == pad for piece in pieces)


def _check_counts(texts: list[list[Piece]], media: dict[str, list[Any]]) -> None:
    for name, pad in (("picture", IMAGE_PAD), ("video", VIDEO_PAD)):
        found, given = sum(count_placeholders(pieces, pad) for pieces in texts), len(media[pad])
        if found != given:
            raise ValueError(
                f"`text` has {found} {name} placeholders `{pad}`, but `{'images' if pad == IMAGE_PAD else 'videos'}` "
                f"has {given} {name}s; expected one each. Render the messages with one part a {name}, and hand over "
                "what they show in that order."
            )


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` is {value!r}; expected one of {', '.join(choices)}.")


def _shown(chats: list[Messages], kind: str) -> Iterator[Any]:
    """The pictures or videos that messages name, in their order."""
    for message in (message for chat in chats for message in chat):
        for part in message["content"] if not isinstance(message["content"], str) else ():
            named = [part[key] for key in (kind, f"{kind}_url", "path", "url") if part.get(key) is not None]
            if named and (part.get("type") == kind or kind in part or f"{kind}_url" in part):
                yield named[0]["url"] if isinstance(named[0], dict) else named[0]


def _texts(text: str | Sequence[str] | None) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text or ())
    if not texts:
        raise ValueError("`text` is empty; expected a rendered prompt or a list of them.")
    return texts


def _as_list(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _flat(images: Any) -> list[Any]:
    return [picture for entry in _as_list(images) for picture in _as_list(entry)]


def _path(argument: str, source: Any) -> str:
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"`{argument}` holds a {type(source).__name__}; expected a path, an address or a PIL picture.")
    return os.fspath(source)


def _video(source: Any) -> Video:
    if isinstance(source, Video):
        return source
    if isinstance(source, (list, tuple)) and all(isinstance(frame, (str, os.PathLike)) for frame in source):
        return Video(tuple(map(os.fspath, source)))
    if isinstance(source, (str, os.PathLike)):
        return Video(os.fspath(source))
    raise ValueError(
        f"`videos` holds a {type(source).__name__}; expected a path, an address, a list of frames' paths or a `Video`."
    )


def _padded(rows: list[np.ndarray], filler: int, side: str, *, padding: bool) -> dict[str, np.ndarray]:
    lengths = [len(row) for row in rows]
    if not padding and len(set(lengths)) > 1:
        raise ValueError(f"the texts have {lengths} tokens, and `padding` is False; expected True for a batch of them.")
    ids = np.full((len(rows), max(lengths)), filler, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, row_ids, row_mask in zip(rows, ids, mask, strict=True):
        place = slice(len(row_ids) - len(row), None) if side == "left" else slice(len(row))
        row_ids[place], row_mask[place] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def _joined(patches_name: str, grids_name: str, cut_up: list[CutUp]) -> dict[str, np.ndarray]:
    if not cut_up:
        return {}
    grids, patches = zip(*cut_up, strict=True)
    return {patches_name: np.concatenate(patches), grids_name: np.array(grids, dtype=np.int64)}


def _as_tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    import paddle  # here: a processor that gives arrays works without it

    return {name: paddle.to_tensor(array) for name, array in batch.items()}
