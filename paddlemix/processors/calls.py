"""How the field calls a processor: with messages, or with rendered texts and what they show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Protocol

import numpy as np

from paddlemix.contract import Tokenizer
from paddlemix.conversation import ImageSettings, VideoSettings
from paddlemix.processors.batches import (
    AskedMedium,
    ModelInputs,
    as_list,
    as_tensors,
    check_choice,
    flat,
    padded,
    text_list,
)
from paddlemix.processors.turns.checked import check_messages

Messages = list[dict[str, Any]]

_SETTINGS: dict[str, type[ImageSettings] | type[VideoSettings]] = {"image": ImageSettings, "video": VideoSettings}
_OTHER_NAMES = {"video_start": "start", "video_end": "end", "sample_fps": "fps"}


class RendersMessages(Protocol):
    """Makes a prompt's text of messages."""

    def render(self, messages: Messages, *, add_generation_prompt: bool = False, add_vision_id: bool = False) -> str:
        """Write the text."""
        ...


class MessageCalls(ABC):
    """`apply_chat_template` and the call, for a processor that encodes rendered texts.

    Attributes:
        tokenizer: knows what fills a batch, and on which side.
        chat_template: renders messages.
    """

    tokenizer: Tokenizer
    chat_template: RendersMessages

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        *,
        padding: bool = True,
        padding_side: Literal["left", "right"] | None = None,
        return_tensors: Literal["pd", "np"] = "pd",
    ) -> ModelInputs:
        """Encode rendered texts with what they show.

        A control token spelled in `text` is that control token: rendering keeps no one's words apart from the
        template's. For texts of strangers use `Conversation` with `encode` and `encode_prompt`, which do. A path in a
        text opens nothing; only `images` and `videos` do.

        Args:
            images: paths, addresses or PIL images in the order of the texts' placeholders, one for each; lists of them,
                one for each text, are concatenated.
            text: one rendered prompt or several.
            videos: paths, addresses, lists of frames' paths, or `Video`s, in the order of the texts' placeholders.
            padding: pad to the longest text; False takes texts of one length only.
            padding_side: None for the tokenizer's own setting, and "left" where it has none: answers begin at the end.
            return_tensors: "pd" for Paddle's tensors, "np" for NumPy's arrays.

        Returns:
            input_ids and attention_mask int64[B, L], and the model's inputs for what the texts show, as in
            `Sample.media`.

        Raises:
            ValueError: placeholders and images or videos are not as many, one cannot be read, texts differ in length
                without padding, or an argument has a value that it cannot have.
        """
        side = padding_side or self.tokenizer.settings.get("padding_side", "left")
        check_choice("padding_side", side, ("left", "right"))
        check_choice("return_tensors", return_tensors, ("pd", "np"))
        rows, media = self._encode_texts(text_list(text), flat(images), as_list(videos))
        batch = {**padded(rows, self.tokenizer.pad_token_id, side, padding=padding), **media}
        return ModelInputs(batch if return_tensors == "np" else as_tensors(batch))

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
                "image": path or PIL image}`, `{"type": "video", "video": path}` and `{"type": "text", "text": ...}`.
                Settings of one image or video stand beside it: `"max_pixels": 100352`, `"video_start": 2.5`. A list of
                such lists is a batch.
            tokenize: give ids in place of text, the images and videos read from the messages.
            add_generation_prompt: end with the opening of an assistant's turn.
            add_vision_id: number the images and videos ("Picture 1: ").
            return_dict: with `tokenize`, give the whole batch, as the call does.
            **call: with `tokenize`, arguments of the call such as `return_tensors`.

        Returns:
            The text, or a batch's list of texts; with `tokenize` the input_ids int64[B, L], or all of the batch.

        Raises:
            TypeError: arguments of the call, or `return_dict`, without `tokenize`.
            ValueError: a role, or the name or id of a call, could be read as something else; with `tokenize`, as the
                call.
        """
        is_batch = bool(messages) and isinstance(messages[0], list)
        chats: list[Messages] = messages if is_batch else [messages]  # type: ignore[assignment, list-item]
        for chat in chats:
            check_messages(chat)
        texts = [
            self.chat_template.render(chat, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id)
            for chat in chats
        ]
        if tokenize:
            shown = [list(media_of_messages(chats, kind)) for kind in ("image", "video")]
            batch = self(text=texts, images=shown[0], videos=shown[1], **call)
            return batch if return_dict else batch["input_ids"]
        if call or return_dict:
            names = [*call, *(["return_dict"] if return_dict else [])]
            raise TypeError(f"`apply_chat_template` got {', '.join(names)}, which goes with `tokenize=True` only.")
        return texts if is_batch else texts[0]

    @abstractmethod
    def _encode_texts(
        self, texts: list[str], images: list[Any], videos: list[Any]
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Encode rendered texts.

        Args:
            texts: as they were rendered.
            images: all that they show.
            videos: likewise.

        Returns:
            int64[L] of each text, and the model's inputs for images and videos.

        Raises:
            ValueError: texts do not show as many images or videos as there are, or one cannot be read.
        """


def media_of_messages(chats: list[Messages], kind: Literal["image", "video"]) -> Iterator[Any]:
    """Find the images or videos that messages name, in their order, as an `AskedMedium` where one has settings."""
    for message in (message for chat in chats for message in chat):
        for part in message["content"] if not isinstance(message["content"], str) else ():
            named = [part[key] for key in (kind, f"{kind}_url", "path", "url") if part.get(key) is not None]
            if named and (part.get("type") == kind or kind in part or f"{kind}_url" in part):
                source = named[0]["url"] if isinstance(named[0], dict) else named[0]
                settings = _settings_of(part, _SETTINGS[kind])
                yield source if settings == _SETTINGS[kind]() else AskedMedium(source, settings)


def _settings_of(part: Mapping[str, Any], kind: type[ImageSettings] | type[VideoSettings]) -> Any:
    """Take the settings of a message's image or video, as qwen-vl-utils calls them or as we do."""
    names = {field.name for field in fields(kind)}
    called = {_OTHER_NAMES.get(key, key): value for key, value in part.items()}
    return kind(**{name: called[name] for name in names & called.keys()})
