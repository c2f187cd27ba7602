"""The demo's small Qwen-VL, untrained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddlemix.examples.demo.byte_pairs import train_byte_pairs
from paddlemix.examples.demo.small_qwen2_vl import IMAGE_MEAN, IMAGE_STD
from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.processing import QwenVLProcessor
from paddlemix.models.qwen_vl.tiktoken_file import ranks_of_byte_level
from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer

# Images of 112 x 112: 64 patches, which the resampler gathers into 16 tokens.
IMAGE_SIZE, N_QUERIES, N_EXTRA_TOKENS = 112, 16, 8


def make(corpus: Path, vocab_size: int) -> tuple[QWenLMHeadModel, QwenVLProcessor]:
    """Make a Qwen-VL of 1.6 M parameters, and its processor with a vocabulary of the corpus."""
    tokenizer = train_tokenizer(corpus, vocab_size)
    image_processor = QwenVLImageProcessor(IMAGE_SIZE, IMAGE_MEAN, IMAGE_STD)
    return QWenLMHeadModel(small_config(tokenizer)), QwenVLProcessor(tokenizer, image_processor)


def train_tokenizer(corpus: Path, vocab_size: int) -> QwenTokenizer:
    """Train the tokenizer on the lines of a text file; the special tokens follow the vocabulary."""
    ranks = ranks_of_byte_level(train_byte_pairs(corpus, vocab_size).get_vocab())
    return QwenTokenizer(ranks, {"n_queries": N_QUERIES, "n_extra_tokens": N_EXTRA_TOKENS})


def small_config(tokenizer: QwenTokenizer, **changes: Any) -> QWenConfig:
    """Give the shape that fits this tokenizer; the resampler's heads are 128 wide, and so the model is no narrower."""
    shape = {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "kv_channels": 32,
        "intermediate_size": 768,
        "visual": {"width": 96, "layers": 4, "heads": 4, "mlp_ratio": 4},
        **changes,
    }
    of_tokenizer = {"image_start_id": tokenizer.img_start_id, "n_queries": tokenizer.n_queries}
    shape["visual"] = {"image_size": IMAGE_SIZE, "output_dim": shape["hidden_size"], **shape["visual"], **of_tokenizer}
    return QWenConfig(vocab_size=len(tokenizer), **shape)
