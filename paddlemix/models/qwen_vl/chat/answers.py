"""Where an answer of Qwen-VL ends, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paddlemix.models.qwen_vl.chat.context import CHAT_FORMATS
from paddlemix.models.qwen_vl.tokenizer import END_OF_TEXT, QwenTokenizer


@dataclass(frozen=True)
class DecodedAnswer:
    """An answer.

    Attributes:
        text: without white space round it.
        end_reason: the special token that ended it, or how many tokens there were in all.
    """

    text: str
    end_reason: str


def stop_words_ids(tokenizer: QwenTokenizer, chat_format: str = "chatml") -> list[list[int]]:
    """List the sequences of tokens behind which an answer is over.

    Args:
        tokenizer: of the model.
        chat_format: "chatml" or "raw".

    Returns:
        Ids of a turn's end and start; of "Human:" and the end of a text in the raw format.

    Raises:
        ValueError: there is no such format.
    """
    if chat_format == "raw":
        return [tokenizer.encode("Human:"), [tokenizer.eod_id]]
    if chat_format == "chatml":
        return [[tokenizer.im_end_id], [tokenizer.im_start_id]]
    raise ValueError(f"`chat_format` is {chat_format!r}; expected one of {', '.join(CHAT_FORMATS)}.")


def decode_tokens(
    ids: Sequence[int], tokenizer: QwenTokenizer, *, context_length: int, chat_format: str = "chatml"
) -> DecodedAnswer:
    """Read the answer in what a model has generated.

    In ChatML it ends before the first token that ends or starts a turn; where none does, its last token goes, as in the
    original: it is the end of a text, or one at which the answer was cut off.

    Args:
        ids: prompt and answer.
        tokenizer: of the model.
        context_length: tokens of the prompt. The original counts its characters, which go wrong where it is composed
            or a path does not fit.
        chat_format: "chatml" or "raw".

    Returns:
        The answer.

    Raises:
        ValueError: there is no such format.
    """
    answer, ends = list(ids[context_length:]), (tokenizer.im_start_id, tokenizer.im_end_id)
    reason = f"Gen length {len(ids)}"
    if chat_format == "raw":
        return DecodedAnswer(tokenizer.decode(answer).replace(END_OF_TEXT, "").strip(), reason)
    if chat_format != "chatml":
        raise ValueError(f"`chat_format` is {chat_format!r}; expected one of {', '.join(CHAT_FORMATS)}.")
    end = next((place for place, token in enumerate(answer) if token in ends), None)
    if end is None:
        return DecodedAnswer(tokenizer.decode(answer[:-1]).strip(), reason)
    return DecodedAnswer(tokenizer.decode(answer[:end]).strip(), f"Gen {tokenizer.decode(answer[end])!r}")
