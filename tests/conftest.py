"""What many tests start from: a tiny model of the real class, and a small rendered set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither find what a user's runs have kept nor leave anything behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDLEMIX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered set of 24 pictures to train on, with held-out records."""
    from paddlemix.examples.demo.make_data import Settings, make_data

    folder = tmp_path_factory.mktemp("shapes") / "data"
    make_data(folder, Settings("base", train=24, eval=4, seed=0), workers=1)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Qwen2-VL of about 0.1 M parameters, with its tokenizer and processor files."""
    import paddle

    from paddlemix.examples.demo import make_model
    from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from paddlemix.processors.chat_template import ChatTemplate
    from paddlemix.processors.image import Qwen2VLImageProcessor
    from paddlemix.processors.qwen2_vl import Qwen2VLProcessor

    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = make_model.train_tokenizer(shapes / "corpus.txt", vocab_size=320)
    values = {
        **make_model.small_config(tokenizer).to_published(),
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
    pictures = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=56 * 56)
    Qwen2VLProcessor(tokenizer, pictures, ChatTemplate()).save_pretrained(folder)
    return folder
