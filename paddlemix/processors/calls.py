"""What every family's processor does alike when it is called as the field calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

Messages = list[dict[str, Any]]


class RendersMessages(Protocol):
    """Makes a prompt's text of messages."""

    def render(self, messages: Messages, *, add_generation_prompt: bool = False, add_vision_id: bool = False) -> str:
        """The text."""
        ...


class MessageCalls:
    """`apply_chat_template` and `batch_decode`, for a processor that can be called and has the attributes below.

    Attributes:
        chat_template: renders messages.
        decode: the text of ids.
    """

    chat_template: RendersMessages
    decode: Callable[..., str]
    __call__: Callable[..., Any]

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
                A list of such lists is a batch.
            tokenize: give ids in place of text, the images and videos read from the messages.
            add_generation_prompt: end with the opening of an assistant's turn.
            add_vision_id: number the images and videos ("Picture 1: ").
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
            shown = [list(media_of_messages(chats, kind)) for kind in ("image", "video")]
            batch = self(text=texts, images=shown[0], videos=shown[1], **call)
            return batch if return_dict else batch["input_ids"]
        if call or return_dict:
            names = [*call, *(["return_dict"] if return_dict else [])]
            raise TypeError(f"`apply_chat_template` got {', '.join(names)}, which goes with `tokenize=True` only.")
        return texts if is_batch else texts[0]

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


def media_of_messages(chats: list[Messages], kind: str) -> Iterator[Any]:
    """The images or videos that messages name, in their order."""
    for message in (message for chat in chats for message in chat):
        for part in message["content"] if not isinstance(message["content"], str) else ():
            named = [part[key] for key in (kind, f"{kind}_url", "path", "url") if part.get(key) is not None]
            if named and (part.get("type") == kind or kind in part or f"{kind}_url" in part):
                yield named[0]["url"] if isinstance(named[0], dict) else named[0]
