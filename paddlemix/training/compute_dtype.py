"""What a run computes products from on a CPU, which holds for all its ranks and from its start to its end."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from paddlemix._environment import gpu_is_usable
from paddlemix.checkpoints.identity import RunIdentity
from paddlemix.distributed.ranks import from_first
from paddlemix.ops import set_compute_dtype
from paddlemix.ops.probing.kept import speed_of, text_of
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.linear import ComputeDtype, rounding_pays

logger = logging.getLogger(__name__)

AskedDtype = Literal["auto", "float32", "bfloat16"]
_DTYPE, _CPU = "cpu_compute_dtype", "cpu"


@dataclass(frozen=True)
class ComputeSettings:
    """What a run computes with.

    Attributes:
        dtype: that factors of products are rounded to.
        cpu: the processor and what computes on it, in words; "" on a GPU, and without the built ops.
    """

    dtype: ComputeDtype
    cpu: str = ""

    def as_keys(self) -> dict[str, Any]:
        """Return what a run's identity says of it, by key."""
        return {_DTYPE: self.dtype, **({_CPU: self.cpu} if self.cpu else {})}


def settle_compute_dtype(asked: AskedDtype, checkpoint: str | None) -> ComputeSettings:
    """Let this process compute as the config asks, alike in all ranks; say where that is slow, or no longer the same.

    Args:
        asked: of the config. "auto" is what the run began with, or of a new run what is faster on the first rank's
            machine.
        checkpoint: that the run goes on from; None of a new run.

    Returns:
        What the run computes with.

    Raises:
        OSError: the checkpoint cannot be read, or the ranks do not come together.
        ValueError: the checkpoint's identity is damaged.
    """
    began = RunIdentity.read(Path(checkpoint)).keys if checkpoint else {}
    if gpu_is_usable():
        set_compute_dtype("float32")
        return ComputeSettings("float32" if asked == "auto" else asked)
    _compute_as_the_first_rank()
    dtype = _choose(began) if asked == "auto" else asked
    if not set_compute_dtype(dtype):
        logger.warning(
            "`%s` is bfloat16%s, but float32 is what can be had here; `python -m paddlemix.ops` tells why.",
            _DTYPE, " as this run began" if checkpoint else "",
        )  # fmt: skip
    settings = ComputeSettings(dtype, _cpu())
    _tell(settings, asked, began)
    return settings


def _compute_as_the_first_rank() -> None:
    """Take over what the first rank has measured: where nothing can be kept, each process has measured for itself."""
    own = built.speed()
    text = from_first(lambda: "" if own is None else text_of(own))
    if text and own is not None:
        built.take_speed(speed_of(text))


def _choose(began: Any) -> ComputeDtype:
    if began.get(_DTYPE) in ("float32", "bfloat16"):
        return cast(ComputeDtype, began[_DTYPE])
    return cast(ComputeDtype, from_first(lambda: "bfloat16" if rounding_pays() else "float32"))


def _cpu() -> str:
    speed = built.speed()
    return "" if speed is None else speed.in_words()


def _tell(settings: ComputeSettings, asked: AskedDtype, began: Any) -> None:
    speed = built.speed()
    if speed is None:
        return
    rates = f"{speed.rounded_rate:.0f} GFLOP/s of a thread from bfloat16, {speed.wide_rate:.0f} in float32"
    if settings.dtype == "bfloat16" and speed.rounded_rate < speed.wide_rate:
        why = f'Set "{_DTYPE}": "auto"' if asked == "bfloat16" and not began else "The run goes on as it began"
        logger.warning("Products from bfloat16 are slower here than in float32: %s. %s.", rates, why)
    elif asked == "auto":
        logger.info("`%s` is %s: %s.", _DTYPE, settings.dtype, "as the run began" if began else rates)
    if began.get(_CPU, settings.cpu) != settings.cpu:
        logger.info(
            "The run began on %s and goes on with %s: products are computed in %s as before, but the last bits of "
            "their sums may differ.", began[_CPU], settings.cpu, settings.dtype,
        )  # fmt: skip
