"""The demo's small Qwen2.5-VL, untrained."""

from __future__ import annotations

from pathlib import Path

from paddlemix.examples.demo.small_qwen2_vl import language_values, make_processor
from paddlemix.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, Qwen25VLConfig
from paddlemix.models.qwen2_5_vl.processing import Qwen25VLProcessor
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer


def make(corpus: Path, vocab_size: int) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen25VLProcessor]:
    """Make a Qwen2.5-VL of 3 M parameters, and its processor with a vocabulary of the corpus."""
    processor = make_processor(Qwen25VLProcessor, corpus, vocab_size)
    return Qwen2_5_VLForConditionalGeneration(small_config(processor.tokenizer)), processor


def small_config(tokenizer: Qwen2Tokenizer) -> Qwen25VLConfig:
    """Give the shape that fits this tokenizer: the small Qwen2-VL's, with windows of a quarter of an image.

    As in the published models, the last block of a group attends to the whole image, and a block's MLP is 2.67 times as
    wide as the tower.
    """
    tower = {
        "depth": 4,
        "hidden_size": 128,
        "num_heads": 4,
        "intermediate_size": 342,
        "window_size": 56,
        "fullatt_block_indexes": [3],
        "tokens_per_second": 2,
    }
    return Qwen25VLConfig(**language_values(tokenizer), vision_config=tower)
