"""Qwen-VL against the numbers that are kept in this repository, see make_reduced_fixture.py."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from paddlemix.generation.cache import KVCache
from paddlemix.handover import Layout
from paddlemix.models.decoder import Decoder
from paddlemix.models.layers.mask import causal_mask
from paddlemix.models.qwen_vl import QWenConfig
from paddlemix.models.qwen_vl.checkpoint import weight_layout
from paddlemix.models.qwen_vl.modeling import rotaries
from paddlemix.models.qwen_vl.positions import ntk_alpha, scaled_frequencies
from paddlemix.models.qwen_vl.vision import QWenVisionTower, cut_patches
from paddlemix.models.vision_language import Inputs
from paddlemix.ops import Segments, resize_grid
from paddlemix.weights.loading import load_weights

FOLDER = Path(__file__).parents[2] / "fixtures" / "qwen_vl_tiny_reduced"
# States reach 4 and logits 8; 1e-5 apart were measured.
TOLERANCE = 5e-5


def stored(name):
    with np.load(FOLDER / name) as file:
        return dict(file)


@pytest.fixture(scope="module")
def config():
    return QWenConfig(**json.loads((FOLDER / "config.json").read_text("utf-8")))


@pytest.fixture(scope="module")
def tower(config):
    """With the original's weights, of its blocks the first."""
    whole, holder = nn.Layer(), nn.Layer()
    whole.transformer, holder.visual = holder, QWenVisionTower(config.visual)
    load_weights(whole, FOLDER, weight_layout(config))
    return holder.visual


def assert_close(found, wanted, name=""):
    assert np.abs(wanted).max() > 0.1, name
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0, err_msg=name)


def test_the_tower_begins_as_the_originals(tower):
    wanted = stored("tower.npz")
    with paddle.no_grad():
        patches = tower.conv1(cut_patches(paddle.to_tensor(wanted["pixel_values"]), 14))
        places = resize_grid(tower.positional_embedding, 8)
        normed = tower.ln_pre(patches + places)
        mixed = tower.transformer.resblocks[0](normed, Segments(normed.shape[1:2]))
    assert_close(patches.numpy().swapaxes(1, 2).reshape(1, 96, 8, 8), wanted["conv1"], "conv1")
    assert_close(places.numpy(), wanted["positional_embedding_interp"], "positional_embedding_interp")
    assert_close(normed.numpy(), wanted["ln_pre"], "ln_pre")
    assert_close(mixed.numpy(), wanted["block_0"], "block_0")


def test_the_tower_ends_as_the_originals(tower):
    wanted, pool = stored("tower.npz"), tower.attn_pool
    with paddle.no_grad():
        keys = pool.kv_proj(paddle.to_tensor(wanted["block_2"]))
        pooled = pool(paddle.to_tensor(wanted["block_2"]))
        found = {"kv_proj": keys, "ln_kv": pool.ln_kv(keys), "ln_q": pool.ln_q(pool.query), "attn_pool": pooled}
        found |= {"resampler_pos_interp": resize_grid(pool.pos_embed, 8), "ln_post": tower.ln_post(pooled)}
        found["output"] = paddle.matmul(found["ln_post"], tower.proj)
    for name, tensor in found.items():
        assert_close(tensor.numpy(), wanted[name], name)


def test_a_head_of_the_decoder_attends_as_the_originals(config):
    """The other heads' weights are zero, which changes nothing for this one."""
    wanted, size = stored("decoder.npz"), config.head_dim
    decoder = Decoder(config.decoder_shape)
    block, cache = decoder.h[0], KVCache(24)
    weight, bias = np.zeros((3, 256, 256), dtype=np.float32), np.zeros((3, 256), dtype=np.float32)
    weight[:, :size], bias[:, :size] = wanted["c_attn_weight"], wanted["c_attn_bias"]
    block.attn.c_attn.weight.set_value(weight.reshape(-1, 256).T.copy())
    block.attn.c_attn.bias.set_value(bias.reshape(-1))
    block.attn.c_proj.weight.set_value(np.eye(256, dtype=np.float32))
    block.ln_1.weight.set_value(wanted["ln_1"])
    hidden = paddle.to_tensor(wanted["hidden_0"][None])
    with paddle.no_grad():
        turned = rotaries(config, Inputs((1, 24), None, None, None, [], {}, Layout({})), training=False)
        mixed = block.attn(block.ln_1(hidden), turned, causal_mask(24, 24, None), cache)
    assert_close(cache._key.numpy()[0, :, 0], wanted["past_k"])
    assert_close(cache._value.numpy()[0, :, 0], wanted["past_v"])
    assert_close(mixed.numpy()[0, :, :size], wanted["attn"] @ wanted["past_v"])


def test_the_rotary_base_grows_with_the_length_as_the_originals(config):
    wanted = {key: one for key, one in stored("decoder.npz").items() if key.startswith("long_inv_freq_")}
    assert len(wanted) == 8 and len({str(one) for one in wanted.values()}) == 3
    for key, frequencies in wanted.items():
        alpha = ntk_alpha(int(key.removeprefix("long_inv_freq_")), 24)
        found = scaled_frequencies(config.rotary_emb_base, config.head_dim, alpha).numpy()
        np.testing.assert_allclose(found, frequencies, rtol=1.2e-7, atol=0, err_msg=key)


@pytest.fixture(scope="module")
def own():
    """What our model gives today, and what it gave while the whole of the original's numbers held."""
    return runpy.run_path(str(Path(__file__).parent / "make_reduced_fixture.py"))["own_numbers"](), stored("own.npz")


@pytest.mark.parametrize("batch", ["long", "short", "left", "shown"])
def test_everything_is_as_it_was_while_the_originals_numbers_held(own, batch):
    numbers, stored_numbers = own
    assert numbers.keys() == stored_numbers.keys() and len(numbers) == 4 * 6
    found, wanted = ({key.split("/")[1]: one[key] for key in one if key.startswith(f"{batch}/")} for one in own)
    assert wanted["gradient_norms"].size == 60 and wanted["losses"][2] < wanted["losses"][0]
    for what in ("greedy", "beams", "stopped"):
        np.testing.assert_array_equal(found[what], wanted[what], err_msg=what)
    assert_close(found["logits"], wanted["logits"])
    # Steps of AdamW make noise larger.
    np.testing.assert_allclose(found["losses"], wanted["losses"], rtol=1e-4)
    np.testing.assert_allclose(found["gradient_norms"], wanted["gradient_norms"], rtol=1e-4, atol=1e-6)


def test_the_batches_of_our_own_tell_ways_of_writing_apart(own):
    _, wanted = own
    answers = {
        what: [wanted[f"{batch}/{what}"].tolist() for batch in ("long", "short", "left", "shown")]
        for what in ("greedy", "beams", "stopped")
    }
    assert answers["greedy"] != answers["beams"] and answers["greedy"] != answers["stopped"]


def test_what_is_kept_is_small():
    assert 1_000_000 < sum(file.stat().st_size for file in FOLDER.iterdir()) < 3_000_000
