from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from paddle import nn

from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments
from paddlemix.models.quantized import Quantizing
from paddlemix.models.registry import find_family
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import language_layers
from paddlemix.training.finetune import Run
from paddlemix.training.freezing import ModuleCount, count_by_module, freeze


class Tower(nn.Layer):
    def __init__(self):
        super().__init__()
        self.blocks = nn.LayerList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.attn_pool = nn.Linear(2, 3, bias_attr=False)


class Model(nn.Layer):
    def __init__(self):
        super().__init__()
        self.visual = Tower()
        self.lm_head = nn.Linear(3, 5)


@pytest.fixture
def model():
    return Model()


def trained(model):
    return [name for name, parameter in model.named_parameters() if not parameter.stop_gradient]


HEAD = ["lm_head.weight", "lm_head.bias"]
POOL = ["visual.attn_pool.weight"]
BLOCKS = [f"visual.blocks.{index}.{kind}" for index in (0, 1) for kind in ("weight", "bias")]


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        (None, None, [*BLOCKS, *POOL, *HEAD]),
        ([], [], [*BLOCKS, *POOL, *HEAD]),
        (["*visual*"], None, HEAD),
        (["*visual*"], ["*visual.attn_pool*"], [*POOL, *HEAD]),
        (["*visual*", "lm_head.bias"], ["*attn_pool*", "*.1.*"], [*BLOCKS[2:], *POOL, "lm_head.weight"]),
        (None, ["*attn_pool*"], POOL),
        (["*"], ["lm_head.*"], HEAD),
        (["*blocks.[0]*"], None, [*BLOCKS[2:], *POOL, *HEAD]),
    ],
)
def test_what_include_matches_and_exclude_does_not_is_frozen(model, include, exclude, left):
    freeze(model, include, exclude)
    assert trained(model) == left


def test_a_glob_must_match_the_whole_name(model):
    with pytest.raises(ValueError, match=r"`freeze_include` \['visual'\] matches no parameter"):
        freeze(model, ["visual"], None)


def test_freezing_again_says_anew_what_is_frozen(model):
    freeze(model, ["*visual*"], None)
    freeze(model, ["lm_head*"], None)
    assert trained(model) == [*BLOCKS, *POOL]


@pytest.mark.parametrize(
    ("include", "exclude", "said"),
    [
        (["*visual*", "*vision*"], None, "`freeze_include` ['*vision*'] matches no parameter"),
        (["*visual*"], ["*pool_attn*"], "`freeze_exclude` ['*pool_attn*'] matches no parameter"),
    ],
)
def test_a_glob_that_matches_nothing_is_refused_with_the_modules(model, include, exclude, said):
    with pytest.raises(ValueError) as caught:
        freeze(model, include, exclude)
    assert said in str(caught.value)
    assert "visual.blocks, visual.attn_pool, lm_head" in str(caught.value)
    assert len(trained(model)) == 7


def test_freezing_everything_is_refused(model):
    with pytest.raises(ValueError, match=r"`freeze_include` \['\*'\] freezes everything"):
        freeze(model, ["*"], None)


def test_numbers_are_counted_by_module_in_the_models_order(model):
    freeze(model, ["*visual*"], ["*visual.attn_pool*", "*.1.bias"])
    assert count_by_module(model) == [
        ModuleCount("visual.blocks", trained=2, frozen=10),
        ModuleCount("visual.attn_pool", trained=6, frozen=0),
        ModuleCount("lm_head.weight", trained=15, frozen=0),
        ModuleCount("lm_head.bias", trained=5, frozen=0),
    ]
    assert count_by_module(model, depth=1) == [
        ModuleCount("visual", trained=8, frozen=10),
        ModuleCount("lm_head", trained=20, frozen=0),
    ]


@pytest.mark.parametrize("with_adapters", [False, True])
def test_numbers_that_are_held_as_codes_count_as_frozen(with_adapters, tiny_checkpoint):
    family = find_family(tiny_checkpoint)
    found = []
    for quantizing in (None, Quantizing("nf4")):
        model = family.model_class.from_pretrained(tiny_checkpoint, quantizing=quantizing)
        layers = language_layers(model, family.language_globs)
        if with_adapters:
            MixLoRAModel.adapting(model, AdapterConfig(4, 8), layers)
        found.append(count_by_module(model))
    plain, coded = found
    totals = [[(one.module, one.trained + one.frozen) for one in some] for some in found]
    assert totals[0] == totals[1] and not any(one.coded for one in plain)
    held = {one.module: one.coded for one in coded if one.coded}
    weights = dict(family.model_class.from_pretrained(tiny_checkpoint).named_parameters())
    assert held == {"model.layers": sum(weights[f"{name}.weight"].size for name in layers)}
    assert not with_adapters or coded == [replace(one, coded=held.get(one.module, 0)) for one in plain]


@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "tiny_qwen_vl"])
def test_the_language_model_is_frozen_with_or_without_a_head_of_its_own(checkpoint, request):
    folder = request.getfixturevalue(checkpoint)
    args = SimpleNamespace(tensor_parallel_degree=-1, fp16_opt_level="O1", bf16=False, fp16=False, seed=3)
    model = Run.of(
        FinetuneConfig(ModelArguments(model_name_or_path=str(folder), freeze_llm=True), DataArguments(), {})
    ).load_model(args)
    assert any(name.startswith("lm_head") for name, _ in model.named_parameters()) == (checkpoint == "tiny_qwen_vl")
    trained = {name for name, one in model.named_parameters() if not one.stop_gradient}
    assert trained == {name for name, _ in model.named_parameters() if "visual" in name} and len(trained) > 10
