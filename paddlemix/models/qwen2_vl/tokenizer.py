"""Qwen2's tokenizer: the byte-level BPE of the language model, with the control tokens of Qwen2-VL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer

from paddlemix.processors.qwen_byte_pairs import untrained_tokenizer
from paddlemix.processors.tokenizer import FastTokenizer
from paddlemix.processors.tokens.files import TOKENIZER_FILE
from paddlemix.processors.tokens.files import add_control_tokens as add_in_order
from paddlemix.processors.tokens.vocabulary import read_byte_pairs

# In the order of their ids, which follow the vocabulary's.
CONTROL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# Plain tokens that Qwen2.5 and Qwen3 added: calls of tools, thoughts, code.
PUBLISHED_WORDS = (
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>", "<|fim_prefix|>",
    "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip


class Qwen2Tokenizer(FastTokenizer):
    """Qwen2's tokenizer, from a tokenizer.json or from vocab.json and merges.txt."""

    # As the published Qwen2-VL has it, as far as other libraries need it.
    default_settings: ClassVar[Mapping[str, Any]] = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": list(CONTROL_TOKENS[1:]),
        "model_max_length": 32768,
        "clean_up_tokenization_spaces": False,
    }

    control_tokens: ClassVar[tuple[str, ...]] = CONTROL_TOKENS
    published_words: ClassVar[tuple[str, ...]] = PUBLISHED_WORDS

    @classmethod
    def _read_vocabulary(cls, folder: Path) -> Tokenizer:
        vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
        if not (vocabulary.is_file() and merges.is_file()):
            raise FileNotFoundError(
                f"{folder}: no {TOKENIZER_FILE}, and no vocab.json with merges.txt. Copy the tokenizer's files from "
                "the model that this one was made from."
            )
        return untrained_tokenizer(read_byte_pairs(vocabulary, merges, cls.control_tokens))


def add_control_tokens(tokenizer: Tokenizer) -> None:
    """Give the control tokens the ids behind the vocabulary."""
    add_in_order(tokenizer, CONTROL_TOKENS)
