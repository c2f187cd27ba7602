from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import paddle
import pytest
from paddle import nn
from safetensors.numpy import save_file

from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.loading import load_weights
from paddlemix.weights.stored_tensor import EVERYTHING, Source, StoredTensor


def test_the_first_prefix_that_fits_is_renamed():
    layout = WeightLayout((("a.b.", "x."), ("a.", "y.")), {}, ())
    assert [layout.name_here(name) for name in ("a.b.c", "a.c", "c.a.b")] == ["x.c", "y.c", "c.a.b"]


@pytest.mark.parametrize(
    ("name", "shape", "stored"),
    [("linear", [3, 5], [5, 3]), ("table", [3, 5], [3, 5]), ("bias", [4], [4]), ("kernel", [24, 7], [7, 3, 2, 2, 2])],
)
def test_shapes_on_disk_are_pytorchs(name, shape, stored):
    layout = WeightLayout((), {"kernel": (3, 2, 2, 2)}, ("table",))
    assert layout.stored_shape(name, shape) == stored


@dataclass(frozen=True)
class Part:
    """Some of a stored tensor's rows."""

    name: str
    whole: StoredTensor
    first: int
    shape: tuple[int, int]
    dtype: str = "float32"
    in_paddles_order: bool = False

    @property
    def file(self):
        return self.whole.file

    @property
    def matrix_shape(self):
        return self.shape

    def read_into(self, target, rows=EVERYTHING, columns=EVERYTHING):
        start, end, _ = rows.indices(self.shape[0])
        self.whole.read_into(target, slice(self.first + start, self.first + end), columns)


@dataclass(frozen=True)
class Scaled:
    """Integers and, in another tensor, a scale for each row."""

    name: str
    integers: StoredTensor
    scales: StoredTensor
    dtype: str = "float32"
    in_paddles_order: bool = False
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "shape", self.integers.shape)

    @property
    def file(self):
        return self.integers.file

    @property
    def matrix_shape(self):
        return self.integers.matrix_shape

    def read_into(self, target, rows=EVERYTHING, columns=EVERYTHING):
        scales = np.empty([1, self.integers.shape[0]], np.float32)
        self.scales.read_into(scales)
        self.integers.read_into(target, rows, columns)
        target *= scales[0, rows, None]


class CombiningLayout(WeightLayout):
    """`gate_up` on disk is two parameters, `down` is made of two stored tensors."""

    def sources(self, stored):
        found: dict[str, Source] = {one.name: one for one in stored}
        fused = found.pop("gate_up.weight")
        half = fused.shape[0] // 2
        for number, name in enumerate(("gate.weight", "up.weight")):
            yield name, Part(f"{fused.name} ({name})", fused, number * half, (half, fused.shape[1]))
        yield "down.weight", Scaled("down", found.pop("down.integers"), found.pop("down.scales"))
        yield from found.items()


@pytest.mark.parametrize("extra", [{}, {"other": np.zeros([1])}])
def test_a_layout_may_give_one_stored_tensor_to_several_parameters_and_make_one_of_several(tmp_path, extra):
    rng = np.random.default_rng(0)
    fused, integers = rng.normal(size=[6, 4]).astype(np.float32), rng.integers(-128, 128, [4, 3], np.int8)
    scales = rng.random(4).astype(np.float32)
    stored = {"gate_up.weight": fused, "down.integers": integers, "down.scales": scales, **extra}
    save_file(stored, tmp_path / "model.safetensors")
    model = nn.Layer()
    model.gate, model.up, model.down = (nn.Linear(*shape, bias_attr=False) for shape in ((4, 3), (4, 3), (3, 4)))
    if extra:
        with pytest.raises(ValueError, match=r"1 tensor does not fit[^\n]*\n  unexpected: other"):
            load_weights(model, tmp_path, CombiningLayout((), {}, ()))
    else:
        load_weights(model, tmp_path, CombiningLayout((), {}, ()))
        np.testing.assert_array_equal(paddle.concat([model.gate.weight, model.up.weight], axis=1).numpy(), fused.T)
        np.testing.assert_array_equal(model.down.weight.numpy(), (integers * scales[:, None]).T)
