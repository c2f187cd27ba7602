"""Rounding a weight input by input, so that what one rounding does to the outputs the inputs behind it make good.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022,
arXiv:2210.17323.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import LinAlgError, cholesky, get_lapack_funcs

from paddlemix.quantization.blocks import Blocks
from paddlemix.quantization.calibrated.grid import as_blocks, nearest, steps
from paddlemix.quantization.calibrated.recipe import Recipe

# Inputs whose errors are handed on together to those behind them, by one product.
_TOGETHER = 128


class ColumnRounding:
    """Rounds the weights of the layers that get the same inputs.

    Args:
        hessian: float[in, in], the sum of all inputs' products with one another; changed in place.
        recipe: how weights are quantised.

    Raises:
        ValueError: an input was NaN or infinite, or the damping is too small.
    """

    def __init__(self, hessian: np.ndarray, recipe: Recipe) -> None:
        assert recipe.damping is not None
        if not np.isfinite(hessian).all():
            raise ValueError("its inputs hold NaN or infinite numbers; the model overflows in this precision.")
        uses = np.diagonal(hessian).copy()
        # What no record has used is rounded by itself: another record may use it.
        unused = np.flatnonzero(uses == 0)
        uses[unused] = uses.mean() or 1
        np.fill_diagonal(hessian, uses + recipe.damping * uses.mean())
        self._recipe = recipe
        self._order = np.argsort(-uses, kind="stable") if recipe.orders_by_use else None
        try:
            self._factor = _factor_of_inverse(hessian if self._order is None else hessian[self._order][:, self._order])
        except LinAlgError as error:
            raise ValueError(
                f"its inputs depend on one another too much for `damp_percent` {recipe.damping}; set a larger one, "
                "such as 0.1."
            ) from error

    def blocks(self, weight: np.ndarray) -> Blocks:
        """Quantise a weight.

        Args:
            weight: float[out, in].

        Returns:
            The codes.

        Raises:
            ValueError: the weight holds NaN, infinite or too large numbers.
        """
        bits, order, factor = self._recipe.bits, self._order, self._factor
        rest = np.array(weight.T if order is None else weight.T[order], dtype=factor.dtype, order="C")
        size = self._recipe.group_of(len(rest))
        codes = np.empty(rest.shape, np.uint8)
        scales, zeros = np.empty((2, len(rest) // size, rest.shape[1]), rest.dtype)
        for start, stop in _stretches(len(rest), size):
            errors = np.empty_like(rest[start:stop])
            for column in range(start, stop):
                group = column // size
                if column % size == 0:
                    found = steps(rest[column : column + size], bits, symmetric=self._recipe.symmetric)
                    scales[group], zeros[group] = found
                code = nearest(rest[column], scales[group], zeros[group], bits)
                codes[column] = code
                error = (rest[column] - (code - zeros[group]) * scales[group]) / factor[column, column]
                rest[column + 1 : stop] -= np.outer(factor[column, column + 1 : stop], error)
                errors[column - start] = error
            rest[stop:] -= factor[start:stop, stop:].T @ errors
        return as_blocks(codes, scales, zeros, bits, order)


def _factor_of_inverse(matrix: np.ndarray) -> np.ndarray:
    """Compute the upper triangular matrix whose product, its transpose first, is a matrix's inverse.

    From behind: with an upper R and H = R R', it is the inverse of R. The inverse of H is never computed, and beside it
    no more than two matrices of its size are held.

    Args:
        matrix: float[n, n], symmetric.

    Returns:
        float[n, n].

    Raises:
        LinAlgError: the matrix is not positive definite.
    """
    turned = np.asfortranarray(matrix[::-1, ::-1])
    lower = cholesky(turned, lower=True, overwrite_a=True, check_finite=False)
    (invert,) = get_lapack_funcs(("trtri",), (lower,))
    inverse, info = invert(lower, lower=1, overwrite_c=1)
    assert info == 0, info
    return np.ascontiguousarray(inverse[::-1, ::-1])


def _stretches(inputs: int, group: int) -> Iterator[tuple[int, int]]:
    """Cut inputs into stretches of which each is whole groups, or a part of one: a group's scales are chosen when all
    errors before it have been handed on."""
    width = group if group > _TOGETHER else _TOGETHER // group * group
    for start in range(0, inputs, width):
        stop = min(start + width, inputs)
        for first in range(start, stop, _TOGETHER):
            yield first, min(first + _TOGETHER, stop)
