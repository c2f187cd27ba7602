"""YaRN beside the reference implementation: `make_yarn_reference.py` makes the numbers."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from paddlemix.generation.cache import KVCache
from paddlemix.models.layers.rope_scaling import scaled_frequencies
from paddlemix.models.registry import find_family
from tests.references import FIXTURES, Reference

CASES = json.loads((FIXTURES / "yarn/cases.json").read_text("utf-8"))
BATCH, STRETCH = "mixed_left", 3


@pytest.fixture(params=["qwen2_vl_tiny", "qwen2_5_vl_tiny"])
def family(request):
    return request.param


@pytest.fixture
def expected(family):
    with np.load(FIXTURES / "yarn" / f"{family}.npz") as stored:
        return dict(stored)


def model_with(reference, scaling):
    """The tiny model with YaRN."""
    values = json.loads((reference.folder / "config.json").read_text("utf-8"))
    text = values["text_config"]
    family = find_family(reference.folder)
    text["rope_scaling"] |= scaling
    config = family.config_class(**values)
    model = family.model_class.from_pretrained(reference.folder)
    model.config.rope_scaling = config.rope_scaling
    return model


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_reference_implementations(case, family, expected):
    reference = Reference.read(FIXTURES / family / "tied")
    positions = paddle.to_tensor(reference.arrays[f"{BATCH}/position_ids"] * STRETCH)
    inputs = {**reference.inputs(BATCH), "position_ids": positions}
    logits = model_with(reference, CASES[case])(**inputs).logits.numpy()
    token, plain = reference.is_token(BATCH), reference.arrays[f"{BATCH}/logits"]
    wanted = expected[f"{case}/logits"]
    assert np.abs(logits - wanted)[token].max() < 5e-5
    assert np.abs(wanted - plain)[token].max() > 0.1  # it matters


@pytest.mark.parametrize("case", CASES)
def test_frequencies_of_published_sizes_are_the_reference_implementations(case, expected):
    found = scaled_frequencies(CASES[case], 1e6, 128, context=32768)
    # PyTorch's power of one of the 64 exponents is off by a unit in the last place, the product by two.
    np.testing.assert_allclose(found.per_step, expected[f"{case}/frequencies"], rtol=2.4e-7, atol=0)
    assert found.length == expected[f"{case}/length"]


@pytest.mark.parametrize("case", CASES)
def test_an_answer_written_token_by_token_has_the_logits_of_the_whole(case, family):
    reference = Reference.read(FIXTURES / family / "tied")
    model = model_with(reference, CASES[case])
    ids = paddle.to_tensor(np.random.default_rng(0).integers(10, 100, (2, 40)))
    whole = model(input_ids=ids).logits.numpy()
    caches = [KVCache(40) for _ in model.decoder.blocks]
    output = model(input_ids=ids[:, :30], past_key_values=caches)
    for place in range(30, 40):
        assert np.abs(output.logits[:, -1].numpy() - whole[:, place - 1]).max() < 5e-5
        output = model(input_ids=ids[:, place : place + 1], past_key_values=caches, **output.next_inputs())
    assert np.abs(output.logits[:, -1].numpy() - whole[:, -1]).max() < 5e-5
