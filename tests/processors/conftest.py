import json
import os
from pathlib import Path

import pytest
from PIL import Image
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from paddlemix.processors.chat_template import ChatTemplate
from paddlemix.processors.image import Qwen2VLImageProcessor
from paddlemix.processors.qwen2_vl import Qwen2VLProcessor
from paddlemix.processors.qwen_tokenizer import VOCABULARY_FILE, QwenTokenizer
from paddlemix.processors.text import Qwen2Tokenizer, add_control_tokens, untrained_tokenizer

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "fixtures"
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
def qwen_reference():
    """The folder that make_qwen_reference.py wrote: a small tokenizer of Qwen-VL's kind, and cases."""
    return Path(__file__).parents[1] / "fixtures" / "qwen_vl_processor"


@pytest.fixture(scope="session")
def qwen_tokenizer(qwen_reference):
    return QwenTokenizer.from_pretrained(qwen_reference)


@pytest.fixture(scope="session")
def published_qwen_cases():
    """What the original tokenizer and its chat code gave, by section; lists of ids are whole."""
    if not (PUBLISHED / "qwen_tokenizer_cases.json").is_file():
        pytest.skip(f"Qwen-VL's vocabulary and cases are not at {PUBLISHED}")
    return json.loads((PUBLISHED / "qwen_tokenizer_cases.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def published_qwen_tokenizer(published_qwen_cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published_qwen")
    os.symlink(PUBLISHED / "vocab" / VOCABULARY_FILE, folder / VOCABULARY_FILE)
    return QwenTokenizer.from_pretrained(folder)


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
