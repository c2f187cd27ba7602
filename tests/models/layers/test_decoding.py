"""Blocks that take a token in one op, in models of both families."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddlenlp.peft import LoRAConfig, LoRAModel

from paddlemix.generation.reading import CachedReader
from paddlemix.models.layers.linear import Linear
from paddlemix.models.quantized import put_plain_layers, quantized_layers
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel
from paddlemix.models.replace import replace_layer
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.decode_block import MOST_ROWS
from paddlemix.quantization.linear import QuantizedLinear
from paddlemix.quantization.rounding import KINDS, rounded

FIXTURES = Path(__file__).parents[2] / "fixtures"
# Of the largest logit: 3.5e-6 apart were measured with and without the built ops.
TOLERANCE = 1.5e-5
STEPS = 4
# Where the blocks are, in either family.
BLOCKS = ("model.layers", "transformer.h")


@pytest.fixture(params=["qwen2_vl", "qwen_vl"])
def model(request):
    """A tiny model with weights drawn anew."""
    paddle.seed(3)
    if request.param == "qwen2_vl":
        config = json.loads((FIXTURES / "qwen2_vl_tiny" / "untied" / "config.json").read_text("utf-8"))
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**config))
    else:
        config = json.loads((FIXTURES / "qwen_vl_tiny_reduced" / "config.json").read_text("utf-8"))
        model = QWenLMHeadModel(QWenConfig(**config))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.set_value(0.1 * paddle.randn(parameter.shape))
    return model.eval()


@pytest.fixture
def called(monkeypatch):
    """The names of the built ops that ran, once for each time, and for each block that tokens were taken through."""
    if built.library().handle is None:
        pytest.skip(f"no built ops: {built.library().reason}")
    names, run = [], built.run

    def listed(name, *arguments):
        blocks_of_call = len(arguments[5]) if name == "decode" else 1
        names.extend([name] * blocks_of_call)
        return run(name, *arguments)

    monkeypatch.setattr(built, "run", listed)
    return names


def blocks_of(model):
    return model.model.layers if hasattr(model, "model") else model.transformer.h


def output_layer(block):
    return block.self_attn.o_proj if hasattr(block, "self_attn") else block.attn.c_proj


def steps(model, rows=2, padded=True):
    """Logits of a few tokens that follow a prompt."""
    rng = np.random.default_rng(0)
    batch = {"input_ids": rng.integers(1, 60, [rows, 9]), "attention_mask": np.ones([rows, 9], dtype=np.int64)}
    if padded:
        batch["attention_mask"][0, :4] = 0
    reader = CachedReader(model, batch, STEPS)
    reader.read_prompts()
    return np.stack([reader.read(rng.integers(1, 60, [rows])).numpy() for _ in range(STEPS)])


@pytest.mark.parametrize("padded", [False, True])
def test_a_token_takes_one_op_a_block_and_gives_what_the_layers_give(model, called, monkeypatch, padded):
    found = steps(model, padded=padded)
    assert called.count("decode") == STEPS * len(blocks_of(model)) > STEPS
    assert called.count("hold_block") == len(blocks_of(model))
    monkeypatch.setattr(built, "library", lambda: built.Library("a test asked for the reference"))
    wanted = steps(model, padded=padded)
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize(
    "listened_to",
    [output_layer, lambda block: block.mlp, lambda block: getattr(block, "self_attn", None) or block.attn],
)
def test_layers_that_something_listens_to_are_called(model, called, listened_to):
    wanted = steps(model)
    called.clear()
    heard = []
    layer = listened_to(blocks_of(model)[0])
    layer.register_forward_post_hook(lambda layer, inputs, output: heard.append(output.shape))
    found = steps(model)
    assert heard[1:] == [[2, 1, model.config.hidden_size]] * STEPS
    assert called.count("decode") == STEPS * (len(blocks_of(model)) - 1)
    # Where the library computes products of two rows, as each machine measures, sums have another order: 1e-5 of 2.5.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5)


def test_adapters_are_not_passed_over(model, called):
    before = steps(model)
    names = [name for name, layer in model.named_sublayers() if layer is output_layer(blocks_of(model)[-1])]
    adapted = LoRAModel(model, LoRAConfig(target_modules=names, r=2))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.set_value(paddle.ones_like(parameter))
    called.clear()
    found = steps(adapted.model.eval())
    assert called.count("decode") == STEPS * (len(blocks_of(model)) - 1)
    assert np.abs(found - before).max() > 0.01


def quantise(model, kind):
    """Hold the weights of the blocks' linear layers as codes, each of them with an order of its own."""
    rng = np.random.default_rng(4)
    for name, layer in model.named_sublayers():
        if type(layer) is Linear and any(name.startswith(f"{prefix}.") for prefix in BLOCKS):
            blocks = rounded(np.ascontiguousarray(layer.weight.numpy().T), kind)
            blocks = replace(blocks, order=rng.permutation(blocks.shape[1]))
            replace_layer(model, name, lambda layer, blocks=blocks: QuantizedLinear(blocks, layer.bias))
    assert len(quantized_layers(model)) > 3 * len(blocks_of(model))
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3])
def test_quantised_layers_take_one_op_too(model, called, monkeypatch, kind, rows):
    found = steps(quantise(model, kind), rows, padded=rows > 1)
    assert called.count("decode") == STEPS * len(blocks_of(model)) > STEPS
    monkeypatch.setattr(built, "library", lambda: built.Library("a test asked for the reference"))
    wanted = steps(model, rows, padded=rows > 1)
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE * np.abs(wanted).max(), rtol=0)


def test_blocks_of_both_kinds_take_one_op(model, called):
    codes = rounded(np.ascontiguousarray(output_layer(blocks_of(model)[0]).weight.numpy().T), "int8")
    name = next(name for name, layer in model.named_sublayers() if layer is output_layer(blocks_of(model)[0]))
    wanted = steps(model)
    replace_layer(model, name, lambda layer: QuantizedLinear(codes, layer.bias))
    called.clear()
    found = steps(model)
    assert called.count("decode") == STEPS * len(blocks_of(model))
    assert 0 < np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_other_weights_are_noticed_between_two_tokens(model, called, monkeypatch):
    before = steps(quantise(model, "int8"))
    put_plain_layers(model)
    called.clear()
    found = []
    for _ in range(2):  # the second time numbers are written into weights that are held
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.set_value(0.7 * parameter)
        found.append(steps(model))
    assert called.count("hold_block") == len(blocks_of(model))
    assert called.count("decode") == 2 * STEPS * len(blocks_of(model))
    monkeypatch.setattr(built, "library", lambda: built.Library("a test asked for the reference"))
    np.testing.assert_allclose(found[1], steps(model), atol=TOLERANCE * np.abs(found[1]).max(), rtol=0)
    assert np.abs(found[0] - before).max() > 0.1 and np.abs(found[1] - found[0]).max() > 0.1


def test_a_copy_of_a_model_computes_with_its_own_weights(model, called):
    before, copied = steps(model), copy.deepcopy(model)
    for parameter in copied.parameters():
        if parameter.ndim == 2:
            parameter.set_value(0.5 * parameter)
    assert np.abs(steps(copied) - before).max() > 0.1
    del copied
    np.testing.assert_array_equal(steps(model), before)


def test_many_rows_are_computed_layer_by_layer(model, called):
    found = steps(model, rows=MOST_ROWS + 1)
    assert "decode" not in called and "attention" in called
    few = steps(model, rows=MOST_ROWS, padded=True)
    assert called.count("decode") == STEPS * len(blocks_of(model)) and few.shape[1] == found.shape[1] - 1
