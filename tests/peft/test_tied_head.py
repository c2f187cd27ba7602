"""An embedding that the head shares, where it is trained whole: against PEFT, where that is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.auto import AutoModelMIX
from paddlemix.configuration.arguments import ModelArguments
from paddlemix.models.registry import find_family
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.training.finetune import AdapterStart, choose_trained

from ..references import FIXTURES

TIED = FIXTURES / "qwen2_vl_tiny" / "tied"
SCRIPT = Path(__file__).with_name("tied_head_reference.py")
VARIABLE = "REFERENCE_PYTHON"


@pytest.fixture(scope="module")
def pefts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tied_head_reference.py` writes."""
    python = os.environ.get(VARIABLE)
    if python is None or subprocess.run([python, "-c", "import peft"], capture_output=True).returncode:
        pytest.skip(f"{VARIABLE} names no Python that has torch, transformers and peft")
    folder = tmp_path_factory.mktemp("pefts")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([python, SCRIPT, TIED, folder], env=environment, check=True, capture_output=True)
    return folder


def trained(adapter: Path | None = None) -> MixLoRAModel:
    keys = ModelArguments(
        model_name_or_path=str(TIED),
        lora=True,
        lora_target_modules=[".*q_proj"],
        lora_modules_to_save=["model.embed_tokens", "lm_head"],
    )
    start = AdapterStart(str(TIED), adapter)
    return choose_trained(
        AutoModelMIX.from_pretrained(TIED), find_family(TIED), keys, is_base=False, seed=0, start=start
    )


def gradient_of(model: MixLoRAModel) -> np.ndarray:
    ids = paddle.to_tensor([[5, 6, 7, 8, 9]])
    model(input_ids=ids, labels=ids).loss.backward()
    return model.get_input_embeddings().weight.grad.numpy()


def test_embedding_and_head_have_the_gradient_of_pefts_tied_weight(pefts: Path) -> None:
    expected = np.load(pefts / "gradient.npy")
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(gradient_of(trained()), expected, atol=1e-5 * np.abs(expected).max())


def test_what_peft_trained_as_one_weight_is_trained_further(pefts: Path) -> None:
    model = trained(pefts / "tied")
    before = AutoModelMIX.from_pretrained(TIED).get_input_embeddings().weight.numpy()
    moved = before - model.get_input_embeddings().weight.numpy()
    np.testing.assert_allclose(moved, 0.1 * np.load(pefts / "gradient.npy"), atol=1e-5)
    assert model.whole_layers == ["model.embed_tokens"] and np.abs(gradient_of(model)).max() > 0


@pytest.mark.parametrize("apart", ["embedding", "head", "both"])
def test_what_peft_trained_apart_is_not_trained_further(pefts: Path, apart: str) -> None:
    with pytest.raises(ValueError, match="they were trained apart, without PEFT's `ensure_weight_tying`"):
        trained(pefts / apart)
