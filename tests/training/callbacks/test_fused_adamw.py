"""AdamW on the threads of the built ops beside Paddle's own, step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.optimizer.lr import LambdaDecay
from paddlenlp.utils import AdamWCustom, AdamWMini

from paddlemix.checkpoints.optimizer_state import load_optimizer, save_optimizer
from paddlemix.ops.tensors import built
from paddlemix.training.callbacks import fused_adamw
from paddlemix.training.callbacks.fused_adamw import FusedAdamW
from paddlemix.training.callbacks.gradient_norm import GradientNorm

# Nothing, less than a vector, around one, and more than one thread takes at a time.
SHAPES = [[0], [1], [15], [17], [63], [7, 9], [3, 5, 7], [33_000], [300, 257]]
# What LoRA+ and rates by module multiply the learning rate with.
FACTORS = [1.0, 16.0, 0.1, 1.6]
STEPS, CLIP = 50, 0.5
NEVER, ALWAYS = (lambda: False), (lambda: True)


class Parameters(nn.Layer):
    """Parameters of many sizes, whose gradients are set and not computed."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(0)
        for place, shape in enumerate(SHAPES):
            start = nn.initializer.Assign(random.standard_normal(shape).astype(np.float32))
            parameter = self.create_parameter(shape, default_initializer=start if 0 not in shape else None)
            parameter.optimize_attr = {"learning_rate": FACTORS[place % len(FACTORS)]}
            self.add_parameter(f"{'bias' if place % 3 == 1 else 'weight'}_{place}", parameter)

    def receive(self, step: int, size: float = 1.0) -> None:
        """Set the gradients of a step; one parameter gets none at every fourth."""
        random = np.random.default_rng(100 + step)
        for place, parameter in enumerate(self.parameters()):
            numbers = random.standard_normal(parameter.shape) * size * 10.0 ** (place % 4 - 2)
            parameter.clear_gradient(False)
            if step % 4 != 3 or place != 4:
                parameter.grad = paddle.to_tensor(numbers.astype(np.float32))


class Training:
    """An optimizer as the trainer makes it, with a schedule, decay by name and clipping."""

    def __init__(
        self,
        *,
        fused: bool,
        clip: Any = CLIP,
        is_wanted: Callable[[], bool] = NEVER,
        kind: Any = paddle.optimizer.AdamW,
    ) -> None:
        self.model = Parameters()
        decaying = {parameter.name for name, parameter in self.model.named_parameters() if "bias" not in name}
        self.rate = LambdaDecay(1e-2, lambda step: 1 - step / (2 * STEPS))
        self.optimizer = kind(
            self.rate,
            parameters=self.model.parameters(),
            weight_decay=0.1,
            apply_decay_param_fun=decaying.__contains__,
            grad_clip=nn.ClipGradByGlobalNorm(clip) if isinstance(clip, float) else clip,
        )
        self.norm = GradientNorm(self.optimizer, tensor_parallel_degree=1, sharding_degree=1, is_wanted=is_wanted)
        if fused:
            FusedAdamW(self.norm).take_over(self.optimizer)

    def train(self, steps: range, size: float = 1.0) -> list[float | None]:
        norms = []
        for step in steps:
            self.model.receive(step, size)
            self.optimizer.step()
            self.rate.step()
            norms.append(self.norm.take())
        return norms

    def numbers(self) -> dict[str, np.ndarray]:
        """All parameters and states, by names that do not depend on how many layers were made before."""
        found = {}
        for name, parameter in self.model.named_parameters():
            found[name] = parameter.astype("float32").numpy()
            for state, tensors in self.optimizer._accumulators.items():
                if parameter.name in tensors:
                    found[f"{name}/{state}"] = tensors[parameter.name].numpy()
        return found


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest):
    """Give the thread count back that a test has changed."""
    before = built.num_threads()
    yield
    built.set_num_threads(before)


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parameters each call of the built op has moved; without the built ops there is nothing to test."""
    if built.library().handle is None:
        pytest.skip(f"no built ops: {built.library().reason}")
    counts: list[int] = []
    step = fused_adamw.adamw_step

    def count(tensors: Any, **numbers: Any) -> None:
        counts.append(len(tensors.parameters))
        step(tensors, **numbers)

    monkeypatch.setattr(fused_adamw, "adamw_step", count)
    return counts


def distance(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """The largest norm of a difference, as a share of the tensor's own."""
    assert found.keys() == wanted.keys() and len(found) > 4 * len(SHAPES)
    differences = {name: np.linalg.norm(found[name].ravel() - wanted[name].ravel()) for name in wanted}
    return max(float(differences[name] / (np.linalg.norm(wanted[name].ravel()) or 1.0)) for name in wanted)


def same_bits(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    assert found.keys() == wanted.keys() and len(found) > 4 * len(SHAPES)
    return all(found[name].tobytes() == wanted[name].tobytes() for name in wanted)


def adds_in_one_rounding() -> bool:
    """Whether these kernels do, as Paddle's own: where not, fifty steps were up to 6e-7 off."""
    return built.library().handle.paddlemix_instruction_set() != b"plain"


def test_fifty_steps_have_the_bits_of_paddles_own(moved: list[int]) -> None:
    ours, theirs = Training(fused=True, clip=None), Training(fused=False, clip=None)
    ours.train(range(STEPS))
    theirs.train(range(STEPS))
    # All but the parameter without numbers, and the one that gets no gradient at every fourth step.
    assert moved == [len(SHAPES) - 1, len(SHAPES) - 1, len(SHAPES) - 1, len(SHAPES) - 2] * (STEPS // 4) + [8, 8]
    if adds_in_one_rounding():
        assert same_bits(ours.numbers(), theirs.numbers())
    else:
        assert distance(ours.numbers(), theirs.numbers()) < 1e-6


def test_fifty_clipped_steps_are_those_of_paddles_own(moved: list[int]) -> None:
    ours, theirs = Training(fused=True, is_wanted=ALWAYS), Training(fused=False, is_wanted=ALWAYS)
    found, wanted = ours.train(range(STEPS)), theirs.train(range(STEPS))
    assert len(moved) == STEPS and min(filter(None, found)) > CLIP
    assert found == pytest.approx(wanted, rel=3e-7)  # Paddle adds squares in float32
    after, expected = ours.numbers(), theirs.numbers()
    parameters = [name for name in after if "/" not in name]
    for name in parameters:
        difference = np.linalg.norm(after[name].ravel() - expected[name].ravel())
        bound = 1e-7 if adds_in_one_rounding() else 1e-6
        assert difference <= bound * np.linalg.norm(expected[name].ravel()), name
    # The moments have what a gradient was multiplied with.
    assert distance(after, expected) < (3e-7 if adds_in_one_rounding() else 1e-6)


def test_a_parameter_that_is_not_to_be_clipped_is_not(moved: list[int]) -> None:
    pair = Training(fused=True), Training(fused=False)
    for one in pair:
        for place, parameter in enumerate(one.model.parameters()):
            parameter.need_clip = place % 2 == 0
        one.train(range(3))
    assert len(moved) == 3
    assert distance(pair[0].numbers(), pair[1].numbers()) < 2e-7


@pytest.mark.parametrize("clip", [1e-12, 1e6])
def test_whatever_the_largest_norm_is_gradients_are_multiplied_as_paddle_does(moved: list[int], clip: float) -> None:
    ours, theirs = Training(fused=True, clip=clip), Training(fused=False, clip=clip)
    ours.train(range(3))
    theirs.train(range(3))
    assert len(moved) == 3
    assert distance(ours.numbers(), theirs.numbers()) < 2e-7


def test_the_number_of_threads_changes_no_bit(moved: list[int]) -> None:
    runs = []
    for threads in (1, 2, 3):
        built.set_num_threads(threads)
        runs.append(Training(fused=True, is_wanted=ALWAYS))
        runs[-1].norms = runs[-1].train(range(5))
    assert len(moved) == 15 and runs[0].norms == runs[1].norms == runs[2].norms
    assert same_bits(runs[1].numbers(), runs[0].numbers()) and same_bits(runs[2].numbers(), runs[0].numbers())


@pytest.mark.parametrize("clip", [None, 1e-10])
@pytest.mark.parametrize("size", [1e-40, 1e-21])
def test_denormal_gradients_and_moments_move_parameters_as_paddles_own(
    moved: list[int], clip: float | None, size: float
) -> None:
    ours, theirs = Training(fused=True, clip=clip), Training(fused=False, clip=clip)
    ours.train(range(3), size)
    theirs.train(range(3), size)
    least = float(np.finfo(np.float32).tiny)
    assert len(moved) == 3 and 0 < size**2 < least  # the squares are, where the gradients are not
    found, wanted = ours.numbers(), theirs.numbers()
    for name, array in wanted.items():
        # Either may flush them to zero.
        nothing = max(least, 1e-6 * float(np.abs(array).max(initial=0)))
        np.testing.assert_allclose(found[name], array, rtol=3e-7, atol=nothing, err_msg=name)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_gradients_that_are_no_numbers_do_what_they_do_in_paddles_own(moved: list[int], value: float) -> None:
    pair = Training(fused=True), Training(fused=False)
    for one in pair:
        one.model.receive(0)
        one.model.bias_7.grad[5] = value
        one.optimizer.step()
    found, wanted = (one.numbers() for one in pair)
    assert len(moved) == 1 and np.isnan(wanted["bias_7"]).any()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("first", [True, False])
def test_a_checkpoint_of_either_goes_on_with_the_other(moved: list[int], first: bool, tmp_path: Path) -> None:
    half = STEPS // 2
    whole, before, after = Training(fused=False), Training(fused=first), Training(fused=not first)
    whole.train(range(half))
    before.train(range(half))
    assert len(moved) == (half if first else 0)
    save_optimizer(before.optimizer, before.model, tmp_path)
    load_optimizer(after.optimizer, after.model, tmp_path)
    assert same_bits({**before.numbers(), **states(after)}, before.numbers())
    after.model.set_state_dict(before.model.state_dict())
    after.rate.set_state_dict(before.rate.state_dict())
    whole.train(range(half, STEPS))
    after.train(range(half, STEPS))
    assert len(moved) == half
    assert distance(after.numbers(), whole.numbers()) < 5e-7


def states(training: Training) -> dict[str, np.ndarray]:
    return {name: array for name, array in training.numbers().items() if "/" in name}


def test_a_gradient_with_gaps_in_memory_is_taken_as_it_is_read(moved: list[int]) -> None:
    pair = Training(fused=True), Training(fused=False)
    for one in pair:
        one.model.receive(0)
        numbers = paddle.to_tensor(np.random.default_rng(3).standard_normal([257, 300]).astype(np.float32))
        one.model.weight_8.grad = numbers.transpose([1, 0])
        one.optimizer.step()
    assert len(moved) == 1
    assert distance(pair[0].numbers(), pair[1].numbers()) < 2e-7


@pytest.mark.parametrize("kind", [AdamWCustom, AdamWMini, paddle.optimizer.Adam])
def test_an_optimizer_of_another_formula_is_left_alone(moved: list[int], kind: Any) -> None:
    layer = nn.Linear(3, 3)
    optimizer = kind(1e-3, parameters=layer.parameters(), grad_clip=nn.ClipGradByGlobalNorm(1.0))
    FusedAdamW(GradientNorm(optimizer, tensor_parallel_degree=1, sharding_degree=1, is_wanted=NEVER)).take_over(
        optimizer
    )
    layer(paddle.ones([2, 3])).sum().backward()
    before = layer.weight.numpy()
    optimizer.step()
    assert moved == [] and np.abs(layer.weight.numpy() - before).max() > 1e-6


@pytest.mark.parametrize("clip", [nn.ClipGradByNorm(0.1), nn.ClipGradByValue(0.1)])
def test_clipping_that_norms_do_not_decide_stays_paddles(moved: list[int], clip: Any) -> None:
    ours, theirs = Training(fused=True, clip=clip), Training(fused=False, clip=clip)
    ours.train(range(3))
    theirs.train(range(3))
    assert moved == [] and same_bits(ours.numbers(), theirs.numbers())


def regularize(training: Training) -> None:
    training.model.weight_8.regularizer = paddle.regularizer.L2Decay(0.1)


def rate_as_tensor(training: Training) -> None:
    training.model.weight_8.optimize_attr = {"learning_rate": paddle.to_tensor([1e-3])}


@pytest.mark.parametrize("change", [regularize, rate_as_tensor])
def test_a_parameter_with_more_to_it_leaves_the_step_to_paddle(
    moved: list[int], change: Callable[[Training], None]
) -> None:
    pair = Training(fused=True), Training(fused=False)
    for one in pair:
        change(one)
        one.train(range(3))
    assert moved == [] and same_bits(pair[0].numbers(), pair[1].numbers())


def test_amsgrad_stays_paddles(moved: list[int]) -> None:
    def with_largest(*arguments: Any, **options: Any) -> paddle.optimizer.AdamW:
        return paddle.optimizer.AdamW(*arguments, amsgrad=True, **options)

    pair = Training(fused=True, kind=with_largest), Training(fused=False, kind=with_largest)
    for one in pair:
        one.train(range(3))
    assert moved == [] and same_bits(pair[0].numbers(), pair[1].numbers())


def test_without_built_ops_paddle_clips_and_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    found = built.Library("a test asked for the reference")
    monkeypatch.setattr(built, "library", lambda: found)
    monkeypatch.setattr(fused_adamw, "adamw_step", lambda *_, **__: pytest.fail("a step without built ops"))
    ours, theirs = Training(fused=True), Training(fused=False)
    ours.train(range(3))
    theirs.train(range(3))
    assert same_bits(ours.numbers(), theirs.numbers())
