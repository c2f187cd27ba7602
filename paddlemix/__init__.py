"""Vision-language models of the Qwen-VL family in PaddlePaddle, from a JSON config to a fine-tuned model."""

from paddlemix._environment import prepare_for_paddle

__version__ = "0.1.0"

prepare_for_paddle()
