import os
import sys

import pytest
from PIL import Image

from paddlemix.visualization import loss_curve
from paddlemix.visualization.loss_curve import collect_points, plot_loss

HISTORY = [
    {"loss": 3.0, "learning_rate": 1e-5, "global_step": 10},
    {"loss": 2.0, "learning_rate": 2e-5, "global_step": 20},
    {"eval_loss": 2.2, "eval_runtime": 3.0},
    {"loss": 1.5, "learning_rate": 1e-5, "global_step": 30},
    {"eval_loss": 1.8, "step": 35},
    {"train_loss": 2.1, "train_runtime": 60.0},
]


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn during a test."""
    drawn = []
    make = loss_curve._figure
    monkeypatch.setattr(loss_curve, "_figure", lambda *points: drawn.append(make(*points)) or drawn[-1])
    return drawn


def test_an_evaluation_without_a_step_belongs_to_the_latest_step_before_it():
    assert collect_points(HISTORY, "eval_loss") == [(20, 2.2), (35, 1.8)]
    assert collect_points(HISTORY, "loss") == [(10, 3.0), (20, 2.0), (30, 1.5)]
    assert collect_points([{"eval_loss": 4.0}], "eval_loss") == [(0, 4.0)]


def test_the_image_shows_both_losses_and_the_learning_rate_on_an_axis_of_its_own(tmp_path, figures):
    plot_loss(HISTORY, tmp_path / "loss.png")
    losses, rates = figures[0].axes
    assert [line.get_label() for line in losses.get_lines()] == ["training loss", "evaluation loss"]
    assert list(losses.get_lines()[0].get_ydata()) == [3.0, 2.0, 1.5]
    assert list(rates.get_lines()[0].get_ydata()) == [1e-5, 2e-5, 1e-5]
    assert [text.get_text() for text in losses.get_legend().get_texts()] == [
        "training loss",
        "evaluation loss",
        "learning rate",
    ]
    assert all([losses.get_title(), losses.get_xlabel(), losses.get_ylabel(), rates.get_ylabel()])


def test_the_image_is_a_whole_png_and_nothing_lies_beside_it(tmp_path):
    path = tmp_path / "output" / "loss.png"
    plot_loss(HISTORY, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert len(set(image.convert("L").tobytes())) > 10
    assert os.listdir(path.parent) == ["loss.png"]


def test_the_suffix_names_the_format(tmp_path):
    plot_loss(HISTORY, tmp_path / "loss.svg")
    assert "<svg" in (tmp_path / "loss.svg").read_text()
    plot_loss(HISTORY, tmp_path / "loss")
    assert (tmp_path / "loss").read_bytes().startswith(b"\x89PNG")


def test_a_single_point_is_drawn_with_a_marker(tmp_path, figures):
    plot_loss(HISTORY[:1], tmp_path / "loss.png")
    (line,) = figures[0].axes[0].get_lines()
    assert line.get_marker() == "o"


def test_without_a_learning_rate_there_is_no_second_axis(tmp_path, figures):
    plot_loss([{"loss": 1.0, "step": 1}, {"loss": 0.5, "step": 2}], tmp_path / "loss.png")
    assert len(figures[0].axes) == 1


@pytest.mark.parametrize("history", [[], [{"train_loss": 2.0}, {"learning_rate": 1e-4, "step": 3}]])
def test_a_history_without_a_loss_is_refused_and_leaves_no_file(tmp_path, history):
    with pytest.raises(ValueError, match=f"none of the {len(history)} log entries holds 'loss'"):
        plot_loss(history, tmp_path / "loss.png")
    assert not os.listdir(tmp_path)


def test_drawing_keeps_no_figure_alive_in_pyplot(tmp_path):
    plot_loss(HISTORY, tmp_path / "loss.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
