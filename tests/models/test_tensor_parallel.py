"""What a rank holds of a split model, without the other ranks."""

from __future__ import annotations

from fnmatch import fnmatchcase
from types import SimpleNamespace

import numpy as np
import pytest

from paddlemix.auto import AutoModelMIX
from paddlemix.models.layers.tensor_parallel import RowLinear
from paddlemix.models.qwen2_vl import Qwen2VLConfig
from paddlemix.models.qwen2_vl.tensor_parallel import split_plan as qwen2_vl_plan
from paddlemix.models.qwen_vl import QWenConfig
from paddlemix.models.qwen_vl.tensor_parallel import split_plan as qwen_vl_plan
from paddlemix.models.tensor_parallel import split_model, tensor_parallel_group
from paddlemix.weights.loading import load_weights, without_initial_values
from paddlemix.weights.share import own_part, share_of

RANKS = 2


@pytest.fixture(scope="module")
def two_headed(tiny_checkpoint, tmp_path_factory):
    """The tiny Qwen2-VL with two groups of keys, and a head of its own."""
    model_class = type(AutoModelMIX.from_pretrained(tiny_checkpoint))
    values = AutoModelMIX.from_pretrained(tiny_checkpoint).config.to_published()
    folder = tmp_path_factory.mktemp("two_headed")
    model_class(Qwen2VLConfig(**{**values, "num_key_value_heads": 2, "tie_word_embeddings": False})).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(params=["two_headed", "tiny_qwen_vl"])
def checkpoint(request):
    return request.getfixturevalue(request.param)


def load_part(checkpoint, rank):
    """As `from_pretrained` does on a rank, which only loading and computing need the others for."""
    kind = type(AutoModelMIX.from_pretrained(checkpoint))
    config = kind.config_class(**AutoModelMIX.from_pretrained(checkpoint).config.to_published())
    with without_initial_values():
        model = kind.from_config(config, dtype="float32")
        split_model(model, kind.split_plan(config), SimpleNamespace(rank=rank, nranks=RANKS))
    load_weights(model, checkpoint, kind.weight_layout(config))
    return model


def test_a_rank_reads_its_part_of_every_split_parameter_and_all_of_the_others(checkpoint):
    whole = {name: value.numpy() for name, value in AutoModelMIX.from_pretrained(checkpoint).named_parameters()}
    parts = [dict(load_part(checkpoint, rank).named_parameters()) for rank in range(RANKS)]
    assert [list(part) for part in parts] == [list(whole)] * RANKS
    split = [name for name in whole if share_of(parts[0][name]) is not None]
    assert len(split) > 15 and len(whole) - len(split) > 10
    for part in parts:
        for name, value in whole.items():
            np.testing.assert_array_equal(part[name].numpy(), own_part(value, part[name]), err_msg=name)
            assert part[name].size == value.size // (RANKS if name in split else 1)


def test_every_glob_of_a_plan_splits_a_layer_and_every_block_ends_with_rows(checkpoint):
    model = load_part(checkpoint, 0)
    plan = type(model).split_plan(model.config)
    names = [name for name, _ in model.named_sublayers()]
    globs = [*plan.columns, *plan.fused, *plan.rows, plan.embedding, plan.head]
    assert [glob for glob in globs if not any(fnmatchcase(name, glob) for name in names)] == []
    ends = [name for name, layer in model.named_sublayers() if isinstance(layer, RowLinear)]
    assert ends == [name for name in names if any(fnmatchcase(name, glob) for glob in plan.rows)]
    assert all(share_of(dict(model.named_parameters())[f"{name}.weight"]).axis == 0 for name in ends)


@pytest.mark.parametrize(
    ("plan", "fitting"),
    [(qwen2_vl_plan(Qwen2VLConfig()), [1, 2, 4]), (qwen_vl_plan(QWenConfig()), [1, 2, 4, 8, 16])],
)
def test_published_shapes_are_split_by_what_shares_their_heads_evenly(plan, fitting):
    for degree in fitting:
        plan.check(degree)
    with pytest.raises(ValueError, match=f"Set it to {' or '.join(map(str, fitting))}, which this model"):
        plan.check(3)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"num_key_value_heads": 1}, "`num_key_value_heads` 1"),
        ({"num_attention_heads": 7, "hidden_size": 448, "num_key_value_heads": 7}, "`num_attention_heads` 7"),
        ({"intermediate_size": 33}, "`intermediate_size` 33"),
        ({"vocab_size": 321}, "`vocab_size` 321"),
        ({"vision_config": {"num_heads": 5, "embed_dim": 80, "mlp_ratio": 4}}, "`vision_config.num_heads` 5"),
        (
            {"vision_config": {"num_heads": 2, "embed_dim": 24, "mlp_ratio": 1.125}},
            "`vision_config.embed_dim * mlp_ratio`",
        ),
    ],
)
def test_what_ranks_cannot_share_evenly_is_named_by_its_key(changes, key):
    small = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
    rope = {"rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]}, "vocab_size": 320}
    plan = qwen2_vl_plan(Qwen2VLConfig(**{**small, **rope, **changes}))
    with pytest.raises(ValueError, match="`tensor_parallel_degree` is 2, but") as refusal:
        plan.check(2)
    assert key in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_model_is_not_split_by_ranks_that_nobody_grouped(tiny_qwen_vl):
    with pytest.raises(ValueError, match="ranks share models by groups of 1 here; call `fleet.init`"):
        tensor_parallel_group(2)
    with pytest.raises(ValueError, match="`tensor_parallel_degree` is 2, but ranks share models by groups of 1"):
        AutoModelMIX.from_pretrained(tiny_qwen_vl, tensor_parallel_degree=2)
