"""What many tests start from: a tiny model of the real class, and a small rendered set."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer, add_control_tokens
from paddlemix.processors.qwen_byte_pairs import untrained_tokenizer

from .references import FIXTURES, Reference, names

if TYPE_CHECKING:
    from paddlemix.contract import Model

CORPUS = [
    "<|im_start|>assistant\nThe red circle is on the left.<|im_end|>",
    "system user assistant You are a helpful assistant.",
    "图中有一只猫和一辆红色的巴士。",
] * 3
PUBLISHED = Path(__file__).parents[1].parent / "shared" / "fixtures"


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither find what a user's runs have kept nor leave anything behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDLEMIX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_data_workers_unless_asked() -> Iterator[None]:
    """Let runs of this process prepare their own records where nothing is said of workers.

    To fork a process that holds what all tests have loaded takes 0.2 s, at each epoch and evaluation. Runs that are
    processes of their own have a worker, as users' runs do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddlemix.configuration.file.data_workers", lambda environ, cores: 0)
        yield


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered set of 24 images to train on, with held-out records."""
    from paddlemix.examples.demo.make_data import Settings, make_data

    folder = tmp_path_factory.mktemp("shapes") / "data"
    make_data(folder, Settings("base", train=24, eval=4, seed=0), workers=1)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Qwen2-VL of about 0.1 M parameters, with its tokenizer and processor files."""
    import paddle

    from paddlemix.examples.demo import small_qwen2_vl
    from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
    from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
    from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor

    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = small_qwen2_vl.train_tokenizer(shapes / "corpus.txt", vocab_size=320)
    values = {
        **small_qwen2_vl.small_config(tokenizer).to_published(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": {"depth": 1, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2},
    }
    paddle.seed(0)
    Qwen2VLForConditionalGeneration(Qwen2VLConfig(**values)).save_pretrained(folder)
    images = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=56 * 56)
    Qwen2VLProcessor(tokenizer, images, Qwen2VLChatTemplate()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen2_5_vl(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Qwen2.5-VL of about 0.1 M parameters, with its tokenizer and processor files."""
    import paddle

    from paddlemix.models.config_file import read_config
    from paddlemix.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, Qwen25VLConfig
    from paddlemix.processors import Qwen25VLProcessor

    folder = tmp_path_factory.mktemp("qwen2_5_vl")
    values = read_config(tiny_checkpoint)
    for name in ("architectures", "model_type"):
        del values[name]
    # Windows of 2 x 2 merged tokens in the first block, the whole image in the second.
    values["vision_config"] = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    paddle.seed(0)
    Qwen2_5_VLForConditionalGeneration(Qwen25VLConfig(**values)).save_pretrained(folder)
    Qwen25VLProcessor.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen_vl(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Qwen-VL of about 0.4 M parameters, with its tokenizer and processor files."""
    import paddle

    from paddlemix.examples.demo import small_qwen_vl
    from paddlemix.examples.demo.make_model import scale_to_width
    from paddlemix.models.qwen_vl import QWenLMHeadModel
    from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
    from paddlemix.models.qwen_vl.processing import QwenVLProcessor

    folder = tmp_path_factory.mktemp("qwen_vl")
    tokenizer = small_qwen_vl.train_tokenizer(shapes / "corpus.txt", vocab_size=320)
    tower = {"width": 32, "layers": 1, "heads": 2, "mlp_ratio": 2}
    config = small_qwen_vl.small_config(tokenizer, num_hidden_layers=2, intermediate_size=256, visual=tower)
    paddle.seed(0)
    model = QWenLMHeadModel(config)
    scale_to_width(model)
    model.save_pretrained(folder)
    QwenVLProcessor(tokenizer, QwenVLImageProcessor(small_qwen_vl.IMAGE_SIZE)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def qwen_reference():
    """The folder that make_qwen_reference.py wrote: a small tokenizer of Qwen-VL's kind, and cases."""
    return Path(__file__).parent / "fixtures" / "qwen_vl_processor"


@pytest.fixture(scope="session")
def qwen_tokenizer(qwen_reference):
    from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer

    return QwenTokenizer.from_pretrained(qwen_reference)


@pytest.fixture(scope="session")
def published_qwen_cases():
    """What the original tokenizer and its chat code gave, by section; lists of ids are whole."""
    if not (PUBLISHED / "qwen_tokenizer_cases.json").is_file():
        pytest.skip(f"Qwen-VL's vocabulary and cases are not at {PUBLISHED}")
    return json.loads((PUBLISHED / "qwen_tokenizer_cases.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def published_qwen_tokenizer(published_qwen_cases, tmp_path_factory):
    """Of the published vocabulary; skips, as its cases do, where that is not there."""
    from paddlemix.models.qwen_vl.tokenizer import VOCABULARY_FILE, QwenTokenizer

    folder = tmp_path_factory.mktemp("published_qwen")
    os.symlink(PUBLISHED / "vocab" / VOCABULARY_FILE, folder / VOCABULARY_FILE)
    return QwenTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def processor_reference():
    """The folder that make_processor_reference.py wrote."""
    return Path(__file__).parent / "fixtures" / "qwen2_vl_processor"


@pytest.fixture(scope="session")
def video_reference():
    """The folder that make_video_reference.py wrote."""
    return Path(__file__).parent / "fixtures" / "qwen2_vl_video"


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
            template or Qwen2VLChatTemplate(),
            max_length=max_length,
            truncate_text=truncate_text,
            allow_control_tokens=allow_control_tokens,
        )

    return make


@pytest.fixture
def save_image(tmp_path):
    """Writes an image of a size in pixels and gives its path."""

    def save(width, height, name=None, **options):
        path = tmp_path / (name or f"{width}x{height}.png")
        Image.linear_gradient("L").resize((width, height)).convert("RGB").save(path, **options)
        return str(path)

    return save


@pytest.fixture(scope="session", params=names("qwen2_vl_tiny"))
def reference(request) -> Reference:
    """Of Qwen2-VL, where `references_of` does not say otherwise; `model` and `fresh_model` are of it."""
    return Reference.read(FIXTURES / request.param)


@pytest.fixture(scope="session")
def model(reference) -> Model:
    """Shared: a test that changes it takes `fresh_model`."""
    from paddlemix.auto import AutoModelMIX

    return AutoModelMIX.from_pretrained(reference.folder)


@pytest.fixture
def fresh_model(reference) -> Model:
    from paddlemix.auto import AutoModelMIX

    return AutoModelMIX.from_pretrained(reference.folder)


@pytest.fixture(scope="session")
def paddlemix_names():
    """A function that calls tensors of a Qwen-VL as PaddleMIX's own model does, whose tower has two forms."""

    def rename(tensors, tower="visual.vit."):
        inner = ("conv1", "positional_embedding", "ln_pre", "transformer")
        named = {}
        for name, tensor in tensors.items():
            visual = name.removeprefix("transformer.visual.")
            if visual != name:
                named[f"{tower if visual.startswith(inner) else 'visual.'}{visual}"] = tensor
            else:
                named[name.replace("transformer.", "transformer.llm.", 1)] = tensor
        return named

    return rename
