from pathlib import Path

import pytest
from PIL import Image
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from paddlemix.processors.chat_template import ChatTemplate
from paddlemix.processors.image import Qwen2VLImageProcessor
from paddlemix.processors.qwen2_vl import Qwen2VLProcessor
from paddlemix.processors.text import Qwen2Tokenizer, add_control_tokens, untrained_tokenizer

CORPUS = [
    "<|im_start|>assistant\nThe red circle is on the left.<|im_end|>",
    "system user assistant You are a helpful assistant.",
    "图中有一只猫和一辆红色的巴士。",
] * 3


@pytest.fixture(scope="session")
def reference():
    """The folder that make_reference.py wrote."""
    return Path(__file__).parents[1] / "fixtures" / "qwen2_vl_processor"


@pytest.fixture(scope="session")
def video_reference():
    """The folder that make_video_reference.py wrote."""
    return Path(__file__).parents[1] / "fixtures" / "qwen2_vl_video"


@pytest.fixture(scope="session")
def tokenizer():
    backend = untrained_tokenizer(BPE())
    trainer = BpeTrainer(vocab_size=400, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    add_control_tokens(backend)
    return Qwen2Tokenizer(backend)


@pytest.fixture(scope="session")
def make_processor(tokenizer):
    def make(max_length=2048, template=None, allow_control_tokens=False, truncate_text=False, **bounds):
        return Qwen2VLProcessor(
            tokenizer,
            Qwen2VLImageProcessor(**bounds),
            template or ChatTemplate(),
            max_length=max_length,
            truncate_text=truncate_text,
            allow_control_tokens=allow_control_tokens,
        )

    return make


@pytest.fixture
def save_picture(tmp_path):
    """Writes a picture of a size in pixels and gives its path."""

    def save(width, height, name=None, **options):
        path = tmp_path / (name or f"{width}x{height}.png")
        Image.linear_gradient("L").resize((width, height)).convert("RGB").save(path, **options)
        return str(path)

    return save
