"""The demo's small Qwen2-VL, untrained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from paddlemix.examples.demo.byte_pairs import train_byte_pairs
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer, add_control_tokens

# Images of 112 x 112: 64 patches, 16 tokens of the decoder. Enough for a few large shapes, and quick on a CPU.
PIXELS = 112 * 112
# Of the rendered images, so that contrasts reach the tower at their full size; the published ones are of photographs.
IMAGE_MEAN, IMAGE_STD = (0.65, 0.62, 0.58), (0.15, 0.15, 0.15)


ProcessorT = TypeVar("ProcessorT", bound=Qwen2VLProcessor)


def make(corpus: Path, vocab_size: int) -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLProcessor]:
    """Make a Qwen2-VL of 3 M parameters, and its processor with a vocabulary of the corpus."""
    processor = make_processor(Qwen2VLProcessor, corpus, vocab_size)
    return Qwen2VLForConditionalGeneration(small_config(processor.tokenizer)), processor


def make_processor(kind: type[ProcessorT], corpus: Path, vocab_size: int) -> ProcessorT:
    """Make the processor of a Qwen2-VL or its kin, with a vocabulary of the corpus."""
    image_processor = Qwen2VLImageProcessor(
        min_pixels=PIXELS, max_pixels=PIXELS, image_mean=IMAGE_MEAN, image_std=IMAGE_STD
    )
    return kind(train_tokenizer(corpus, vocab_size), image_processor, Qwen2VLChatTemplate())


def train_tokenizer(corpus: Path, vocab_size: int) -> Qwen2Tokenizer:
    """Train the tokenizer on the lines of a text file; the control tokens follow the vocabulary."""
    backend = train_byte_pairs(corpus, vocab_size)
    add_control_tokens(backend)
    return Qwen2Tokenizer(backend)


def small_config(tokenizer: Qwen2Tokenizer) -> Qwen2VLConfig:
    """Give the shape that fits this tokenizer."""
    tower = {"depth": 4, "embed_dim": 128, "num_heads": 4, "mlp_ratio": 4}
    return Qwen2VLConfig(**language_values(tokenizer), vision_config=tower)


def language_values(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    """Give everything of config.json but the tower's shape, which a kin has otherwise."""
    return {
        "vocab_size": tokenizer.backend.get_vocab_size(),
        "hidden_size": 192,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        # A head of 32 turns with rows by pairs 4 to 9, with columns by 10 to 15. At the published 1e6 those hardly
        # turn over a grid of 4 x 4 tokens; at 10 neighbouring columns differ by 0.24 to 0.12 radians.
        "rope_theta": 10.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "image_token_id": tokenizer.token_id("<|image_pad|>"),
        "video_token_id": tokenizer.token_id("<|video_pad|>"),
        "vision_start_token_id": tokenizer.token_id("<|vision_start|>"),
        "vision_end_token_id": tokenizer.token_id("<|vision_end|>"),
    }
