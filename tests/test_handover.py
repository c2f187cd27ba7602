from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.handover import (
    HostCopies,
    Layout,
    constant,
    constant_array,
    forget_constants,
    handed_over,
    model_inputs,
    with_layout,
)

from .gpu import fake_copies


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    inputs = {
        "input_ids": rng.integers(0, 9, (2, 5)),
        "cu_seqlens": np.array([0, 3, 5], np.int32),
        "pixel_values": rng.integers(0, 2**15, (7, 3)).astype(np.uint16),  # the bits of bfloat16
        "small": rng.standard_normal((3, 1)).astype(np.float16),
        "loss_weights": rng.random((5, 2)).astype(np.float32).T,  # not contiguous
        "mask": rng.random((3, 3)) > 0.5,
        "number": np.array(4),
        "none": np.zeros((0, 4), np.float32),
    }
    return with_layout(inputs, {"places": np.arange(3), "nowhere": np.zeros(0, np.int64)})


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, one in wanted.items():
        assert found[name].dtype == one.dtype and found[name].shape == one.shape, name
        assert found[name].numpy().tobytes() == one.numpy().tobytes(), name


def test_a_batch_comes_to_a_card_as_it_comes_to_a_cpu_by_one_copy_that_nobody_waits_for(monkeypatch, batch):
    wanted = model_inputs(batch)
    copies = fake_copies.install(monkeypatch.setattr)
    found = handed_over(batch)
    assert [kind for kind, _ in copies] == ["pinned", "copied"]
    layouts = [inputs.pop("layout") for inputs in (found, wanted)]
    assert_same(found, wanted)
    assert found["pixel_values"].dtype == paddle.bfloat16 and len(found) == 8
    for name in ("places", "nowhere"):
        came, made = (layout.tensor(name) for layout in layouts)
        assert came.dtype == made.dtype == paddle.int64 and came.tolist() == made.tolist()
        assert (layouts[0].array(name) == batch[f"layout.{name}"]).all()


def test_nothing_of_a_layout_is_copied_to_a_card_that_has_it(monkeypatch, batch):
    fake_copies.install(monkeypatch.setattr)
    layout = handed_over(batch)["layout"]
    monkeypatch.setattr(paddle, "to_tensor", lambda *_: pytest.fail("copied again"))
    assert layout.tensor("places").tolist() == [0, 1, 2]


def test_a_batch_may_be_written_over_once_it_is_handed_over(monkeypatch, batch):
    fake_copies.install(monkeypatch.setattr)
    for make in (model_inputs, handed_over):
        given = {name: array.copy() for name, array in batch.items()}
        found = make(given)
        for array in given.values():
            array[...] = 0
        assert found["layout"].array("places").tolist() == found["layout"].tensor("places").tolist() == [0, 1, 2]
        assert (found["input_ids"].numpy() == batch["input_ids"]).all()


def test_a_batch_without_a_layout_is_tensors_alone():
    assert set(model_inputs({"x": np.arange(2)})) == {"x"}


def test_an_array_that_has_not_come_with_its_batch_is_copied_once():
    layout = Layout({"places": np.arange(3)})
    assert "places" in layout and "others" not in layout
    assert layout.tensor("places") is layout.tensor("places")


def count_to(number):
    return np.arange(number)


def test_a_constant_is_made_once_for_its_arguments_and_each_device(monkeypatch):
    forget_constants()
    first = constant(count_to, 3)
    assert first is constant(count_to, 3) and first is not constant(count_to, 4) and first.tolist() == [0, 1, 2]
    array = np.array([[1.5, 2]], np.float32)
    assert constant_array(array) is constant_array(array.copy())
    assert constant_array(array).numpy().tolist() == array.tolist() and constant_array(array).dtype == paddle.float32
    assert constant_array(array.T).shape == [2, 1]
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:1")
    assert constant(count_to, 3) is not first
    forget_constants()


def test_a_card_is_asked_for_what_is_looked_up_alone(monkeypatch):
    asked = []
    numpy = paddle.Tensor.numpy
    monkeypatch.setattr(paddle.Tensor, "numpy", lambda tensor: asked.append(tensor.shape) or numpy(tensor))
    copies = HostCopies({"ids": paddle.arange(3), "pixels": paddle.zeros([4]), "none": None, "known": np.arange(2)})
    assert "pixels" in copies and "none" not in copies and len(copies) == 3
    assert copies["ids"].tolist() == copies["ids"].tolist() == [0, 1, 2] and copies["known"].tolist() == [0, 1]
    assert asked == [[3]]
