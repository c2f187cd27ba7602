"""The decoder that families share: stretches of blocks, features that enter between them, normalised heads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import paddle
import pytest

from paddlemix.generation.cache import KVCache
from paddlemix.models.decoder import Decoder, DecoderNames, DecoderShape, Entering, Rotaries
from paddlemix.ops import CausalMask, rotary_frequencies

SHAPE = DecoderShape(
    vocab_size=50, hidden_size=24, intermediate_size=40, layers=3, heads=4, kv_heads=2, head_dim=8, norm_epsilon=1e-6
)
ROWS, LENGTH = 2, 7


def decoder_of(shape: DecoderShape) -> Decoder:
    paddle.seed(0)
    decoder = Decoder(shape)
    for parameter in decoder.parameters():
        parameter.set_value(paddle.randn(parameter.shape) * 0.3)
    return decoder.eval()


def rotaries(shape: DecoderShape = SHAPE, start: int = 0, length: int = LENGTH) -> Rotaries:
    angles = np.arange(start, start + length)[None, :, None] * rotary_frequencies(100.0, shape.head_dim)
    angles = paddle.to_tensor(np.broadcast_to(angles, (ROWS, *angles.shape[1:])).astype(np.float32))
    rotary = angles.cos(), angles.sin()
    return Rotaries(rotary, rotary)


@pytest.fixture
def states() -> paddle.Tensor:
    paddle.seed(1)
    return paddle.randn([ROWS, LENGTH, SHAPE.hidden_size])


def run(decoder: Decoder, x: paddle.Tensor, **stretch) -> paddle.Tensor:
    return decoder.run(x, rotaries(decoder.shape), CausalMask(None), [None] * decoder.shape.layers, **stretch)


def test_the_width_of_all_heads_need_not_be_the_hidden_size(states):
    decoder = decoder_of(SHAPE)
    assert SHAPE.query_width == 32 != SHAPE.hidden_size
    attention = decoder.blocks[0].self_attn
    assert [list(layer.weight.shape) for layer in (*attention.projections, attention.output)] == [
        [24, 32],
        [24, 16],
        [24, 16],
        [32, 24],
    ]
    assert run(decoder, states).shape == states.shape


@pytest.mark.parametrize("cut", [1, 2])
def test_stretches_of_blocks_are_the_whole_bit_by_bit(states, cut):
    decoder = decoder_of(SHAPE)
    whole = run(decoder, states)
    parts = run(decoder, run(decoder, states, stop=cut), start=cut)
    np.testing.assert_array_equal(parts.numpy(), whole.numpy())
    assert np.abs(whole.numpy() - run(decoder, states, stop=cut).numpy()).max() > 0.1


def test_features_enter_behind_their_blocks_at_their_places_and_get_gradients(states):
    decoder = decoder_of(SHAPE)
    places = paddle.to_tensor([3, 5, 9])
    features = {block: paddle.randn([3, SHAPE.hidden_size]) for block in (0, 2)}
    for one in features.values():
        one.stop_gradient = False
    found = run(decoder, states, entering=Entering(places, features))
    by_hand = states
    for block in range(SHAPE.layers):
        by_hand = run(decoder, by_hand, start=block, stop=block + 1)
        if block in features:
            added = np.zeros((ROWS * LENGTH, SHAPE.hidden_size), dtype=np.float32)
            added[places.numpy()] = features[block].numpy()
            by_hand = by_hand + paddle.to_tensor(added.reshape(states.shape))
    # The sum is the same one; 0 was measured.
    np.testing.assert_allclose(found.numpy(), by_hand.numpy(), atol=1e-6, rtol=0)
    assert np.abs(found.numpy() - run(decoder, states).numpy()).max() > 0.1
    found.sum().backward()
    np.testing.assert_array_equal(features[2].grad.numpy(), np.ones((3, SHAPE.hidden_size)))
    assert float(features[0].grad.abs().max()) > 0


@pytest.mark.parametrize("fused", [False, True])
def test_normalised_heads_are_those_of_the_formula(states, fused):
    names = DecoderNames(projections=("qkv",)) if fused else DecoderNames()
    shape = replace(SHAPE, qk_norm=True, kv_heads=4 if fused else 2, names=names, projection_bias=False)
    decoder = decoder_of(shape)
    attention = decoder.blocks[0].self_attn
    x = states.numpy().astype(np.float64)
    weights = [layer.weight.numpy().astype(np.float64) for layer in attention.projections]
    if fused:
        weights = np.split(weights[0], 3, axis=1)
    query, key, value = ((x @ weight).reshape(ROWS, LENGTH, -1, shape.head_dim) for weight in weights)
    cosines, sines = (one.numpy()[:, :, None].astype(np.float64) for one in rotaries().query)

    def turned(heads: np.ndarray, scale: paddle.Tensor) -> np.ndarray:
        normed = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + shape.norm_epsilon) * scale.numpy()
        first, second = np.split(normed, 2, axis=-1)
        return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)

    query, key = turned(query, attention.q_norm.weight), turned(key, attention.k_norm.weight)
    key, value = (one.repeat(shape.heads // shape.kv_heads, axis=2) for one in (key, value))
    scores = np.einsum("blhd,bshd->bhls", query, key) / np.sqrt(shape.head_dim)
    scores = np.where(np.tril(np.ones((LENGTH, LENGTH), bool)), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("bhls,bshd->blhd", shares / shares.sum(-1, keepdims=True), value)
    wanted = mixed.reshape(ROWS, LENGTH, -1) @ attention.output.weight.numpy().astype(np.float64)
    found = attention(states, rotaries(), CausalMask(None), None).numpy()
    assert np.abs(wanted).max() > 1
    # Float32 against float64: 2.2e-7 of the largest number was measured.
    np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_tokens_one_by_one_through_caches_are_those_of_one_pass(states, qk_norm):
    decoder = decoder_of(replace(SHAPE, qk_norm=qk_norm))
    with paddle.no_grad():
        whole = run(decoder, states).numpy()
        caches = [KVCache(LENGTH) for _ in range(SHAPE.layers)]
        steps = [
            decoder.run(states[:, place : place + 1], rotaries(start=place, length=1), None, caches).numpy()
            for place in range(LENGTH)
        ]
    # Products of one row are summed in another order: 7.5e-7 was measured, of numbers up to 5.6.
    np.testing.assert_allclose(np.concatenate(steps, axis=1), whole, atol=4e-6, rtol=0)
    assert np.abs(whole).max() > 4
