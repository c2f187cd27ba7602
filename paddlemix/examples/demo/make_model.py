"""Makes an untrained small Qwen2-VL: the real class, a small config, and a tokenizer trained on a text corpus.

Example:
    python paddlemix/examples/demo/make_model.py --corpus output/demo/data/corpus.txt --output_dir output/demo/untrained
"""

from __future__ import annotations

import argparse
from pathlib import Path

import paddlemix  # noqa: F401  (before Paddle, which it makes quick and quiet)

# isort: split
import paddle
from paddle import nn
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.processors.chat_template import ChatTemplate
from paddlemix.processors.image import Qwen2VLImageProcessor
from paddlemix.processors.qwen2_vl import Qwen2VLProcessor
from paddlemix.processors.text import Qwen2Tokenizer, add_control_tokens, untrained_tokenizer

# Pictures of 112 x 112: 64 patches, 16 tokens of the decoder. Enough for a few large shapes, and quick on a CPU.
PIXELS = 112 * 112
# Of the rendered pictures, so that contrasts reach the tower at their full size; the published ones are of photographs.
IMAGE_MEAN, IMAGE_STD = (0.65, 0.62, 0.58), (0.15, 0.15, 0.15)

RESIDUAL_ENDS = ("o_proj", "down_proj", "attn.proj", "mlp.fc2")
RESIDUAL_SCALE = 0.4
EMBEDDING_SCALE = 0.1


def train_tokenizer(corpus: Path, vocab_size: int) -> Qwen2Tokenizer:
    """Train a byte-level BPE of Qwen2's kind on the lines of a text file; the control tokens follow the vocabulary."""
    backend = untrained_tokenizer(BPE())
    trainer = BpeTrainer(vocab_size=vocab_size, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    backend.train([str(corpus)], trainer)
    add_control_tokens(backend)
    return Qwen2Tokenizer(backend)


def small_config(tokenizer: Qwen2Tokenizer) -> Qwen2VLConfig:
    """A Qwen2-VL of 3 M parameters for this tokenizer."""
    return Qwen2VLConfig(
        vocab_size=tokenizer.backend.get_vocab_size(),
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        # A head of 32 turns with rows by pairs 4 to 9, with columns by 10 to 15. At the published 1e6 those hardly
        # turn over a grid of 4 x 4 tokens; at 10 neighbouring columns differ by 0.24 to 0.12 radians.
        rope_theta=10.0,
        rope_scaling={"type": "mrope", "mrope_section": [4, 6, 6]},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        image_token_id=tokenizer.token_id("<|image_pad|>"),
        video_token_id=tokenizer.token_id("<|video_pad|>"),
        vision_start_token_id=tokenizer.token_id("<|vision_start|>"),
        vision_end_token_id=tokenizer.token_id("<|vision_end|>"),
        vision_config={"depth": 4, "embed_dim": 128, "num_heads": 4, "mlp_ratio": 4},
    )


def scale_to_width(model: nn.Layer) -> None:
    """Draw the weights anew for a narrow model: linear ones with variance 1 / inputs, smaller at a block's end.

    The published initializer_range of 0.02 suits widths of thousands. At 192 it learns slower: captions of one shape
    had a loss of 0.32 after 1500 steps, with this 0.29, and 0.27 with the pictures' own mean and deviation.

    Source: LeCun et al., "Efficient BackProp", 1998, section 4.6.
    """
    for name, layer in model.named_sublayers():
        if isinstance(layer, nn.Linear):
            scale = RESIDUAL_SCALE if name.endswith(RESIDUAL_ENDS) else 1.0
            layer.weight.set_value(paddle.randn(layer.weight.shape) * scale * layer.weight.shape[0] ** -0.5)
        elif isinstance(layer, nn.Embedding):
            layer.weight.set_value(paddle.randn(layer.weight.shape) * EMBEDDING_SCALE)


def main() -> None:
    """Train the tokenizer, draw the weights, save both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="text the tokenizer learns from, a line each")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write")
    parser.add_argument("--vocab_size", type=int, default=512, help="tokens besides the control tokens (default: 512)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    args = parser.parse_args()

    paddle.seed(args.seed)
    tokenizer = train_tokenizer(args.corpus, args.vocab_size)
    model = Qwen2VLForConditionalGeneration(small_config(tokenizer))
    scale_to_width(model)
    model.save_pretrained(args.output_dir)
    image_processor = Qwen2VLImageProcessor(
        min_pixels=PIXELS, max_pixels=PIXELS, image_mean=IMAGE_MEAN, image_std=IMAGE_STD
    )
    Qwen2VLProcessor(tokenizer, image_processor, ChatTemplate()).save_pretrained(args.output_dir)
    numbers = sum(parameter.size for parameter in model.parameters())
    print(f"{args.output_dir} holds an untrained Qwen2-VL of {numbers / 1e6:.2f} M parameters.")


if __name__ == "__main__":
    main()
