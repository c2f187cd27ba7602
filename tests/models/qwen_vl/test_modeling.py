"""Qwen-VL on its own terms, with a model of its own: needs no numbers of the original."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.generation.cache import KVCache
from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel
from paddlemix.models.qwen_vl.spans import image_places

START, QUERIES = 60, 4
# Logits reach 5; 1.3e-5 apart were measured between two ways to the same numbers.
TOLERANCE = 4e-5


@pytest.fixture(scope="module")
def small():
    """Of random weights; a head of the resampler is 128 numbers wide, so nothing can be narrower."""
    paddle.seed(0)
    visual = {"width": 16, "layers": 1, "heads": 2, "mlp_ratio": 2, "patch_size": 4, "image_size": 8}
    config = QWenConfig(
        vocab_size=64,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        kv_channels=64,
        intermediate_size=64,
        seq_length=12,
        initializer_range=0.2,
        visual={**visual, "output_dim": 128, "n_queries": QUERIES, "image_start_id": START},
    )
    return QWenLMHeadModel(config).eval()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)


def span(filler=7):
    return [START, *[filler] * QUERIES, START + 1]


def logits(model, rows, images=None, **inputs):
    pixels = {} if images is None else {"pixel_values": paddle.to_tensor(images)}
    with paddle.no_grad():
        return model(paddle.to_tensor(rows), **pixels, **inputs).logits.numpy()


def test_what_the_placeholders_are_says_nothing(small, images):
    rows = [[1, 2, *span(filler), 3, *span(4)] for filler in (7, 0, START, START + 1)]
    found = [logits(small, [row], images[:2]) for row in rows]
    ends = np.arange(len(rows[0]))
    assert np.abs(found[0]).max() > 0.5 and len(ends) == 15
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_images_are_given_row_by_row(small, images):
    rows = [[1, *span(), *span()], [*span(), 2, 3, 4, 5, 6, 8, 9]]
    together = logits(small, rows, images)
    alone = [logits(small, rows[:1], images[:2]), logits(small, rows[1:], images[2:])]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=TOLERANCE, rtol=0)
    other = logits(small, rows, images[[1, 0, 2]])
    assert np.abs(other - together)[0].max() > 1e-3 and np.abs(other - together)[1].max() == 0


@pytest.mark.parametrize(
    ("row", "given", "said"),
    [
        ([1, *span(), 2], 0, "1 images stand among the tokens, but `pixel_values` holds 0"),
        ([1, *span(), 2], 2, "1 images stand among the tokens, but `pixel_values` holds 2"),
        ([1, 2, 3], 1, "0 images stand among the tokens, but `pixel_values` holds 1"),
        ([1, START, 7, 7, 7, START + 1, 2], 1, "at place 1 of row 0 has 3 before the end token 61; expected 4"),
        ([START, 7, 7, 7, 7, 7, START + 1], 1, "at place 0 of row 0 has 5 before the end token 61; expected 4"),
        ([1, *span()[:-1]], 1, "at place 1 of row 0 has no end token behind it; expected 4"),
        ([1, START + 1, *span()], 1, "place 1 of row 0 holds the end token 61, but no image begins before it"),
    ],
)
def test_images_that_do_not_fit_their_tokens_are_refused_with_both_numbers(small, images, row, given, said):
    with pytest.raises(ValueError) as caught:
        logits(small, [row], images[:given] if given else None)
    assert said in str(caught.value)


def test_pixels_without_tokens_are_refused(small, images):
    with pytest.raises(ValueError, match="`pixel_values` were given without `input_ids`"):
        small(inputs_embeds=paddle.zeros([1, 6, 128]), pixel_values=paddle.to_tensor(images[:1]))


@pytest.mark.parametrize("shape", [[1, 3, 8, 12], [1, 1, 8, 8], [3, 8, 8], [1, 3, 9, 9], [1, 3, 0, 0]])
def test_images_of_another_shape_are_refused(small, shape):
    with pytest.raises(ValueError, match=r"expected \[images, 3, S, S\], S a multiple of 4, such as 8"):
        small.transformer.visual(paddle.zeros(shape))


def test_places_of_images_are_found_in_every_row():
    ids = np.array([[*span(), 1, 2, 3, 4, 5, 6], [9, *span(), 8, 7, 6, 5, 4]])
    places = image_places(ids, START, QUERIES)
    assert [np.flatnonzero(row).tolist() for row in places] == [[1, 2, 3, 4], [2, 3, 4, 5]]


@pytest.mark.parametrize("rows", [[[1, 2, 3, 4, 5]], [[1, *span(), 2, 3]], [[1, *span(), 2, 3], [5] * 9]])
def test_text_images_and_both_train_with_gradients_for_every_parameter(small, images, rows):
    shown = sum(row.count(START) for row in rows)
    model = QWenLMHeadModel(small.config)
    model.set_state_dict(small.state_dict())
    model.train()
    ids = paddle.to_tensor(rows)
    pixels = {"pixel_values": paddle.to_tensor(images[:shown])} if shown else {}
    output = model(ids, labels=ids, **pixels)
    output.loss.backward()
    assert output.logits is None and float(output.loss) > 1
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (float(parameter.grad.abs().max()) > 0) == (bool(shown) or ".visual." not in name), name


def test_a_batch_without_images_trains_as_if_there_were_no_tower(small):
    ids = paddle.to_tensor([[1, 2, 3, 4, 5, 6]])
    evaluated = float(small(ids, labels=ids).loss)
    small.train()
    trained = float(small(ids, labels=ids).loss)
    small.eval()
    assert trained == pytest.approx(evaluated, rel=1e-6)


def test_the_tower_runs_for_a_loss_without_images_in_evaluation_too(small):
    calls = []
    hook = small.transformer.visual.register_forward_pre_hook(lambda layer, inputs: calls.append(layer))
    ids = paddle.to_tensor([[1, 2, 3]])
    small(ids, labels=ids)
    assert len(calls) == 1
    small(ids)
    assert len(calls) == 1
    hook.remove()


def test_a_loss_is_the_mean_over_the_target_tokens(small):
    ids = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    labels = np.array([[-100, -100, 3, -100, 5], [-100, 7, -100, -100, -100]])
    with paddle.no_grad():
        output = small(paddle.to_tensor(ids), labels=paddle.to_tensor(labels))
    wide = output.logits.numpy().astype(np.float64)
    wide -= np.log(np.exp(wide).sum(-1, keepdims=True))
    places = [(0, 1, 3), (0, 3, 5), (1, 0, 7)]
    assert float(output.loss) == pytest.approx(-np.mean([wide[place] for place in places]), rel=1e-5)


def test_constants_are_saved_and_loaded_but_are_no_parameters(small, tmp_path):
    assert not any("pos_embed" in name for name, _ in small.named_parameters())
    other = QWenLMHeadModel(small.config)
    places = other.transformer.visual.attn_pool.pos_embed
    other.transformer.visual.attn_pool.pos_embed.set_value(places * 2)
    other.save_pretrained(tmp_path)
    loaded = QWenLMHeadModel.from_pretrained(tmp_path)
    found = loaded.transformer.visual.attn_pool.pos_embed.numpy()
    np.testing.assert_array_equal(found, places.numpy())
    assert not np.allclose(found, small.transformer.visual.attn_pool.pos_embed.numpy())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_loaded_in_half_precision_too(small, tmp_path, dtype):
    small.save_pretrained(tmp_path)
    loaded = QWenLMHeadModel.from_pretrained(tmp_path, dtype=dtype)
    tensors = {**dict(loaded.named_parameters()), **dict(loaded.named_buffers())}
    assert {str(one.dtype) for one in tensors.values()} == {f"paddle.{dtype}"}
    for name, parameter in small.named_parameters():
        np.testing.assert_allclose(
            tensors[name].astype("float32").numpy(), parameter.numpy(), atol=1e-7, rtol=4e-3, err_msg=name
        )


def test_positions_that_restart_are_honoured(small):
    ids = np.array([[1, 2, 3, 4, 5, 6]])
    shifted = logits(small, ids, position_ids=paddle.arange(2, 8).unsqueeze(0))
    # Rotary positions are relative.
    np.testing.assert_allclose(shifted, logits(small, ids), atol=TOLERANCE, rtol=0)
    restarted = logits(small, ids, position_ids=paddle.to_tensor([[0, 1, 2, 0, 1, 2]]))
    assert np.abs(restarted - shifted)[0, 3:].max() > 1e-2


def test_a_cache_filled_in_two_goes_gives_the_logits_of_one(small):
    ids = np.array([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
    caches = [KVCache(10) for _ in range(2)]
    parts = [logits(small, ids[:, :6], past_key_values=caches), logits(small, ids[:, 6:], past_key_values=caches)]
    assert caches[0].prefilled == 6 and caches[0].length == 10
    np.testing.assert_allclose(np.concatenate(parts, axis=1), logits(small, ids), atol=TOLERANCE, rtol=0)


def test_the_last_logits_are_those_of_the_last_place(small):
    ids = np.array([[1, 2, 3, 4]])
    np.testing.assert_allclose(
        logits(small, ids, last_logits_only=True), logits(small, ids)[:, -1:], atol=TOLERANCE, rtol=0
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kv_channels": 64}, "`num_attention_heads` 32 times `kv_channels` 64 is not `hidden_size` 4096"),
        ({"visual": {"output_dim": 1024}}, "`visual.output_dim` 1024 differs from `hidden_size` 4096"),
        ({"visual": {"heads": 5}}, "`visual.width` 1664 must be a multiple of `visual.heads` 5"),
        ({"visual": {"n_queries": 250}}, "`visual.n_queries` is 250; expected a square number"),
        ({"no_bias": False}, "`no_bias` is false; only true is built in"),
        ({"rotary_pct": 0.5}, "`rotary_pct` is 0.5; only 1.0 is built in"),
    ],
)
def test_numbers_that_contradict_one_another_or_are_not_built_in_are_refused(values, said):
    with pytest.raises(ValueError) as caught:
        QWenConfig(**values)
    assert said in str(caught.value)


def test_a_config_can_be_printed_and_reads_back_as_the_same(small):
    written = small.config.to_published()
    assert QWenConfig(**written).to_published() == written
    assert '"n_queries": 4' in small.config.to_json_string()
