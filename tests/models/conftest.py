from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
import pytest

from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration


@pytest.fixture(scope="session")
def as_published() -> Callable[[Qwen2VLForConditionalGeneration, str, paddle.Tensor], np.ndarray]:
    """Turns a parameter, or its gradient, into the shape that the parameter has on disk."""

    def turn(model, name, tensor):
        layout, array = model.weight_layout(model.config), tensor.numpy().copy()
        if name in layout.convolution_kernels:
            return array.T.reshape(-1, *layout.convolution_kernels[name])
        return array.T if layout.is_transposed(name, array.ndim) else array

    return turn
