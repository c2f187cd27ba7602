"""Draws how the loss went during training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddlemix.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = list[tuple[int, float]]

_STEP_KEYS = ("global_step", "step")


def plot_loss(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draw training loss, evaluation loss and learning rate over the steps.

    Args:
        history: what the trainer logged, in its order. Of each entry the keys `loss`, `eval_loss`, `learning_rate` and
            `global_step` or `step` are read; an entry without a step, as evaluations log them, belongs to the latest
            step before it.
        path: the image to write, whole or not at all; its suffix names the format (png without one).

    Raises:
        ValueError: no entry holds a `loss` or `eval_loss`.
    """
    train, evaluation = collect_points(history, "loss"), collect_points(history, "eval_loss")
    if not train and not evaluation:
        raise ValueError(
            f"none of the {len(history)} log entries holds 'loss' or 'eval_loss': there is no curve to draw; "
            "log at least once, see logging_steps"
        )
    figure = _figure(train, evaluation, collect_points(history, "learning_rate"))
    with replacing(path) as beside:
        figure.savefig(beside, format=Path(path).suffix[1:] or "png")


def collect_points(history: Sequence[Mapping[str, Any]], key: str) -> Points:
    """Collect the (step, value) pairs of the entries that hold `key`; see `plot_loss` for their steps."""
    points, step = [], 0
    for entry in history:
        step = next((int(entry[name]) for name in _STEP_KEYS if name in entry), step)
        if entry.get(key) is not None:  # null stands for a figure that was NaN or infinite
            points.append((step, float(entry[key])))
    return points


def _figure(train: Points, evaluation: Points, rate: Points) -> Figure:
    # Figure without pyplot draws with Agg: no window system, and no registry that keeps every figure alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot(title="Loss during training", xlabel="optimizer step", ylabel="loss per target token")
    axes.grid(alpha=0.3)
    lines = _draw(axes, train, label="training loss", color="tab:blue", linewidth=1.2)
    lines += _draw(axes, evaluation, label="evaluation loss", color="tab:red", marker="o", linewidth=1.6)
    if rate:
        right = axes.twinx()
        right.set_ylabel("learning rate")
        right.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        lines += _draw(right, rate, label="learning rate", color="tab:gray", linewidth=1.0, linestyle="--")
    axes.legend(handles=lines)
    return figure


def _draw(axes: Axes, points: Points, **style: Any) -> list[Any]:
    # A line through a single point has no length and would not show.
    marker = {"marker": "o"} if len(points) == 1 else {}
    return axes.plot(*zip(*points, strict=True), **{**style, **marker}) if points else []
