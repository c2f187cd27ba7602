from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.training.finetune import Run
from paddlemix.training.plan import _parameter_lines

ARGS = SimpleNamespace(tensor_parallel_degree=-1, fp16_opt_level="O1", bf16=False, fp16=False, seed=3)


def keys(folder: Path, **more) -> ModelArguments:
    return ModelArguments(model_name_or_path=str(folder), lora=True, **more)


def load_model(keys: ModelArguments, args: SimpleNamespace):
    return Run.of(FinetuneConfig(keys, DataArguments(), {})).load_model(args)


def base_of(folder: Path, checkpoint: Path, **values) -> Path:
    """A copy of a checkpoint whose generation_config.json says this."""
    shutil.copytree(checkpoint, folder)
    (folder / "generation_config.json").write_text(json.dumps(values))
    return folder


def test_the_language_model_gets_adapters_and_the_plan_lists_what_is_trained(tiny_checkpoint):
    model = load_model(keys(tiny_checkpoint, lora_rank=4, rslora=True, lora_alpha=8), ARGS)
    lines = list(_parameter_lines(model))
    assert lines[0] == (
        "  lora: rank 4, scale 4, dropout 0.05 on 14 layers (q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
        "down_proj)"
    )
    counts = {line.split()[0]: line.split()[1::2] for line in lines if line.endswith("frozen")}
    assert counts["visual.blocks"][0] == counts["visual.merger"][0] == counts["model.embed_tokens"][0] == "0"
    trained = sum(parameter.size for parameter in model.parameters() if not parameter.stop_gradient)
    assert counts["model.layers"][0] == f"{trained:,}" and trained > 1000
    assert model.adapter_config.base == str(tiny_checkpoint)


def test_the_same_seed_makes_the_same_adapters(tiny_checkpoint):
    first, same, other = (
        np.concatenate([one.numpy().ravel() for name, one in model.named_parameters() if name.endswith("lora_A")])
        for model in (
            load_model(keys(tiny_checkpoint), args)
            for args in (ARGS, ARGS, SimpleNamespace(**{**vars(ARGS), "seed": 4}))
        )
    )
    assert np.array_equal(first, same) and not np.array_equal(first, other) and first.std() > 0.01


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("lora_target_modules", "`lora_target_modules` matches no layer: `.*q_porj.*`. Did you mean `.*q_proj`?"),
        ("lora_modules_to_save", "`lora_modules_to_save` matches no layer: `.*q_porj.*`."),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_by_its_key(tiny_checkpoint, pattern, expected):
    with pytest.raises(ValueError) as caught:
        load_model(keys(tiny_checkpoint, **{pattern: [".*q_porj.*"]}), ARGS)
    assert str(caught.value).startswith(expected)


def test_patterns_give_layers_ranks_and_scales_of_their_own(tiny_checkpoint):
    model = load_model(
        keys(
            tiny_checkpoint,
            lora_rank_pattern={
                "layers.0.self_attn.q_proj": 2,
                r"self_attn\..*": 3,
                r"model\.language_model.*up_proj": 5,
            },
            lora_alpha_pattern={"down_proj": 4.0},
            lora_dora=True,
            lora_bias="lora_only",
        ),
        ARGS,
    )
    ranks = {name.split("layers.")[-1]: (one.rank, one.alpha) for name, one in model.products.items()}
    assert ranks["0.self_attn.q_proj"] == (2, 16) and ranks["1.self_attn.q_proj"] == ranks["0.self_attn.o_proj"]
    assert ranks["0.self_attn.o_proj"] == (3, 16) and ranks["1.mlp.up_proj"] == (5, 16)
    assert ranks["0.mlp.down_proj"] == (8, 4) and ranks["0.mlp.gate_proj"] == (8, 16)
    layer = model.model.model.layers[0].self_attn.q_proj
    assert layer.lora_A.shape[1] == 2 and layer.scaling == 8 and not layer.lora_magnitude_vector.stop_gradient
    assert next(_parameter_lines(model)) == (
        "  dora: rank 2 to 8, scale 0.5 to 8, dropout 0.05 on 14 layers (q_proj, k_proj, v_proj, o_proj, gate_proj, "
        "up_proj, down_proj); 6 biases (lora_only)"
    )


@pytest.mark.parametrize("key", ["lora_rank_pattern", "lora_alpha_pattern"])
@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ({"q_porj": 4}, "matches no layer: `q_porj`. Did you mean `.*q_proj`?"),
        ({"visual.*": 4}, "matches no layer: `visual.*`."),
        ({"(": 4}, "'(' is no regular expression"),
        ({".*": 4, "q_proj": 2}, "`q_proj` decides nothing, because patterns before it match all of its layers"),
    ],
)
def test_a_pattern_that_decides_about_no_layer_is_refused(tiny_checkpoint, key, patterns, said):
    with pytest.raises(ValueError) as caught:
        load_model(keys(tiny_checkpoint, **{key: patterns}), ARGS)
    assert f"`{key}`" in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


def test_biases_of_layers_that_have_none_are_refused(tiny_checkpoint):
    with pytest.raises(ValueError, match="`lora_bias` is lora_only, but no layer of `lora_target_modules` has a bias"):
        load_model(keys(tiny_checkpoint, lora_bias="lora_only", lora_target_modules="o_proj"), ARGS)
    model = load_model(keys(tiny_checkpoint, lora_bias="all", lora_target_modules="o_proj"), ARGS)
    assert len(model.trained_biases) > 10 and model.whole_layers == []


@pytest.mark.parametrize(
    "given", ["q_proj,v_proj", ["q_proj", "v_proj"], r".*\.(q|v)_proj", [".*q_proj", "self_attn.v_proj"]]
)
def test_layers_are_named_as_others_do(tiny_checkpoint, given):
    model = load_model(keys(tiny_checkpoint, lora_target_modules=given, lora_modules_to_save="merger.mlp.0"), ARGS)
    assert {name.rpartition(".")[2] for name in model.adapted_layers} == {"q_proj", "v_proj"}
    assert len(model.adapted_layers) == 4 and model.whole_layers == ["visual.merger.mlp.0"]


def test_all_linear_layers_are_those_of_the_language_model(tiny_checkpoint):
    default, named, more = (
        load_model(keys(tiny_checkpoint, lora_target_modules=given), ARGS).adapted_layers
        for given in (None, "all-linear", "all-linear,visual.merger.mlp.0")
    )
    assert default == named and len(default) == 14
    assert set(more) == {*default, "visual.merger.mlp.0"}


@pytest.mark.parametrize("given", ["q_porj", ["v_proj", "q_porj"], "v_proj, q_porj", "q_por[j]"])
def test_a_name_that_no_layer_has_is_refused_by_itself(tiny_checkpoint, given):
    wrong = "q_por[j]" if "[" in given else "q_porj"
    for key in ("lora_target_modules", "lora_modules_to_save"):
        with pytest.raises(ValueError) as caught:
            load_model(keys(tiny_checkpoint, **{key: given}), ARGS)
        assert str(caught.value).startswith(f"`{key}` matches no layer: `{wrong}`.") and "q_proj" in str(caught.value)


def test_embedding_and_head_of_a_base_model_are_trained_with_a_message(tiny_checkpoint, tiny_qwen_vl, tmp_path, caplog):
    qwen2_vl = base_of(tmp_path / "a", tiny_checkpoint, eos_token_id=0)
    qwen_vl = base_of(tmp_path / "b", tiny_qwen_vl, chat_format="raw")
    for folder, layers in ((qwen2_vl, ["model.embed_tokens", "lm_head"]), (qwen_vl, ["transformer.wte", "lm_head"])):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="paddlemix"):
            model = load_model(keys(folder), ARGS)
        assert f"`lora_modules_to_save` is {layers}" in caplog.text
        own = [layer for layer in layers if f"{layer}.weight" in dict(model.model.named_parameters())]
        assert model.whole_layers == own == load_model(keys(folder, lora_modules_to_save=layers), ARGS).whole_layers
        assert load_model(keys(folder, lora_modules_to_save=[]), ARGS).whole_layers == []


def test_of_a_chat_model_only_what_is_named_is_trained_whole(tiny_checkpoint, tiny_qwen_vl, tmp_path, caplog):
    from paddlemix.auto import AutoTokenizerMIX

    end = AutoTokenizerMIX.from_pretrained(tiny_checkpoint).token_id("<|im_end|>")
    chat = base_of(tmp_path / "chat", tiny_checkpoint, eos_token_id=[end, 0])
    for folder in (tiny_checkpoint, chat, tiny_qwen_vl):
        assert load_model(keys(folder), ARGS).whole_layers == []
    named = load_model(keys(chat, lora_modules_to_save=[r"visual\.merger\.mlp.*", ".*down_proj"]), ARGS)
    assert len(named.whole_layers) == 4 and len(named.adapted_layers) == 12
    assert "base model" not in caplog.text
    with pytest.raises(ValueError, match="`lora_modules_to_save` names every layer of `lora_target_modules`"):
        load_model(keys(chat, lora_modules_to_save=[".*down_proj"], lora_target_modules=[".*down_proj"]), ARGS)


def test_an_adapter_is_no_model_to_fine_tune_without_lora(tiny_checkpoint, tmp_path):
    model = load_model(keys(tiny_checkpoint), ARGS)
    assert isinstance(model, MixLoRAModel)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is an adapter. Set `lora` to true to train it further; or merge it"):
        Run.of(FinetuneConfig(replace(keys(tmp_path), lora=False), DataArguments(), {}))
    assert load_model(keys(tmp_path), ARGS).adapted_layers == model.adapted_layers


@pytest.mark.parametrize(
    ("pattern", "named", "missing"),
    [(".*embed_tokens", "model.embed_tokens", "lm_head"), ("lm_head", "lm_head", "model.embed_tokens")],
)
def test_an_embedding_and_the_head_that_shares_it_are_not_trained_apart(tiny_checkpoint, pattern, named, missing):
    with pytest.raises(ValueError, match=f"names {named} without {missing}, but they are one weight"):
        load_model(keys(tiny_checkpoint, lora_modules_to_save=[pattern]), ARGS)
