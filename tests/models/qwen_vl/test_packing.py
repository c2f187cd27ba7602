"""Qwen-VL on packs: the numbers of one sample at a time."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.contract import Sample
from paddlemix.datasets.collate import TrainingCollator
from paddlemix.datasets.mixing.loss_weights import WeightedSample, count_targets
from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel

PAD, IMAGE_START, QUERIES = 0, 97, 4


@pytest.fixture(scope="module")
def model() -> QWenLMHeadModel:
    """Random weights in the real class: what is compared is the model with itself."""
    visual = {
        "heads": 2, "image_size": 28, "image_start_id": IMAGE_START, "layers": 1, "mlp_ratio": 2, "patch_size": 14,
        "width": 32, "n_queries": QUERIES,
    }  # fmt: skip
    config = QWenConfig(
        vocab_size=100, hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        kv_channels=64, seq_length=64, initializer_range=0.1, visual=visual,
    )  # fmt: skip
    paddle.seed(0)
    return QWenLMHeadModel(config)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """One with an image, one of text alone, one with two images."""
    return [make_sample(length, images) for length, images in ((9, 1), (5, 0), (13, 2))]


def make_sample(length: int, images: int) -> Sample:
    rng = np.random.default_rng(length)
    text = rng.integers(1, 90, length)
    span = [IMAGE_START, *[IMAGE_START + 2] * QUERIES, IMAGE_START + 1]
    ids = np.concatenate([text[:2], np.array(span * images, dtype=np.int64), text[2:]])
    labels = np.where((ids < 90) & (rng.random(len(ids)) < 0.7), ids, -100)
    labels[0] = ids[0]  # Qwen-VL trains the tokens that open a turn, and so labels the first of a sample
    pixels = rng.standard_normal((images, 3, 28, 28)).astype(np.float32)
    return Sample(ids, labels, media={"pixel_values": pixels} if images else {})


def batch_of(samples: list[Sample], weights: list[float], packs: bool) -> dict[str, paddle.Tensor]:
    row = [WeightedSample(sample, weight) for sample, weight in zip(samples, weights, strict=True)]
    arrays = TrainingCollator(PAD, packs=packs)([row])
    return {name: paddle.to_tensor(array) for name, array in arrays.items()}


def loss_and_gradients(model: QWenLMHeadModel, batches: list[dict[str, paddle.Tensor]]):
    """Summed over the batches."""
    model.train()
    model.clear_gradients()
    loss = 0.0
    for batch in batches:
        part = model(**batch).loss
        part.backward()
        loss += float(part)
    return loss, {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}


def test_the_logits_of_a_pack_are_those_of_each_sample_alone(model, samples):
    model.eval()
    pack = batch_of(samples, [1.0] * 3, packs=True)
    assert pack["cu_seqlens"].shape == [4] and pack["position_ids"].shape == [1, pack["input_ids"].shape[1]]
    with paddle.no_grad():
        packed = model(**pack).logits.numpy()[0]
        alone = [model(**batch_of([sample], [1.0], packs=False)).logits.numpy()[0] for sample in samples]
    # Sums over more rows are taken in another order.
    np.testing.assert_allclose(packed, np.concatenate(alone), atol=2e-5, rtol=0)
    assert np.abs(packed).max() > 0.5


@pytest.mark.parametrize("loss_per", ["token", "sample"])
@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_loss_and_gradients_of_a_batch_are_those_of_its_samples_alone(model, samples, loss_per, packs):
    counts = [count_targets(sample.labels) for sample in samples]
    assert len(set(counts)) == 3
    weights = [1 / sum(counts) if loss_per == "token" else 1 / (3 * count) for count in counts]
    one_by_one = [batch_of([one], [weight], packs=False) for one, weight in zip(samples, weights, strict=True)]
    wanted, gradients = loss_and_gradients(model, one_by_one)
    loss, together = loss_and_gradients(model, [batch_of(samples, weights, packs=packs)])
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert gradients.keys() == together.keys() and len(gradients) > 30
    for name, gradient in gradients.items():
        # A key's bias moves all scores of a row alike and so has a gradient of rounding errors only.
        norm = max(np.linalg.norm(gradient), 1e-4)
        assert np.linalg.norm(together[name] - gradient) < 1e-5 * norm, name


def test_no_sample_of_a_pack_feels_another_ones_tokens(model, samples):
    model.eval()
    before = batch_of(samples, [1.0] * 3, packs=True)
    start, end = before["cu_seqlens"].tolist()[1:3]
    after = {**before, "input_ids": before["input_ids"].clone()}
    after["input_ids"][:, start:end] = (after["input_ids"][:, start:end] + 1) % 90
    with paddle.no_grad():
        one, other = (model(**batch).logits.numpy()[0] for batch in (before, after))
    assert (one[:start] == other[:start]).all() and (one[end:] == other[end:]).all()
    assert np.abs(one[start:end] - other[start:end]).max() > 0.01


def test_a_pack_without_positions_is_refused(model, samples):
    batch = batch_of(samples, [1.0] * 3, packs=True)
    del batch["position_ids"]
    with pytest.raises(ValueError, match="`cu_seqlens` needs `position_ids` that restart at every sample"):
        model(**batch)
