"""Every private name of Paddle's optimizers and of fleet's sharding that we touch, each behind a public function.

True for Paddle 3.3. tests/distributed/test_paddle_seams.py looks for each name in the Paddle that is installed,
so that an upgrade which takes one away fails there with a sentence and not in a run of many cards.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import paddle
from paddle import nn
from paddle.distributed.fleet.meta_optimizers.dygraph_optimizer.hybrid_parallel_optimizer import HybridParallelClipGrad
from paddle.distributed.fleet.meta_parallel.sharding import group_sharded_stage3
from paddle.distributed.fleet.meta_parallel.sharding.group_sharded_stage3 import GroupShardedStage3
from paddle.distributed.fleet.meta_parallel.sharding.group_sharded_utils import GroupShardedClipGrad

Gradients = list[tuple[Any, paddle.Tensor]]

PADDLE_VERSIONS = "3.3"

# Numbers of a gradient whose squares are summed at once: 64 MiB in float32.
PIECE = 2**24


# Optimizers: `paddle.optimizer.Optimizer`, and what fleet puts round it.


def innermost(optimizer: Any) -> Any:
    """Return Paddle's optimizer itself, without what fleet puts round it (`_inner_opt`, `_optim`)."""
    while (inner := _inside(optimizer)) is not None:
        optimizer = inner
    return optimizer


def master_weights(optimizer: Any) -> dict[str, paddle.Tensor]:
    """Return the float32 copies that an optimizer updates in place of half-precision weights, by Paddle's names."""
    return innermost(optimizer)._master_weights


def keep_master_weights(optimizer: Any) -> None:
    """Let an optimizer update half-precision weights by way of float32 copies (`_multi_precision`).

    In bfloat16 what is smaller than 2**-9 of a weight is lost when it is added to it, and most updates are. Float32
    weights are updated as ever.

    Args:
        optimizer: that has taken no step yet.
    """
    innermost(optimizer)._multi_precision = True


def accumulators(optimizer: Any) -> dict[str, dict[str, paddle.Tensor]]:
    """Return an optimizer's states, such as moments: by the state's name, then by Paddle's name of the parameter."""
    return innermost(optimizer)._accumulators


def make_states(optimizer: Any, parameter: paddle.Tensor) -> None:
    """Let an optimizer make a parameter's states now (`_create_accumulators`), which it does at its first step else."""
    block = paddle.base.framework.default_main_program().global_block()
    innermost(optimizer)._create_accumulators(block, [parameter])


def updated_parameters(optimizer: Any) -> list[paddle.Tensor]:
    """Return the parameters, or pieces of them, that an optimizer updates (`_parameter_list`)."""
    return innermost(optimizer)._parameter_list


def replace_clipping(optimizer: Any, clip: Callable[[Gradients], Gradients]) -> Callable[[Gradients], Gradients] | None:
    """Put something in the place of an optimizer's clipping of gradients (`_grad_clip`).

    Args:
        optimizer: as training calls it.
        clip: takes and gives parameters with their gradients.

    Returns:
        What was there before; None where gradients were not clipped.
    """
    inner = innermost(optimizer)
    earlier, inner._grad_clip = inner._grad_clip, clip
    return earlier


def replace_decay_rule(optimizer: Any, name_of: Callable[[str], str]) -> None:
    """Let an optimizer ask under other names which parameters decay (`_apply_decay_param_fun`), where it asks at all.

    Args:
        optimizer: as training calls it.
        name_of: gives the name to ask for, of that of an updated parameter.
    """
    inner = innermost(optimizer)
    if (decays := getattr(inner, "_apply_decay_param_fun", None)) is not None:
        inner._apply_decay_param_fun = lambda name: decays(name_of(name))


def clips_by_global_norm(clip: Any) -> bool:
    """Tell whether a clipping multiplies all gradients with one number, which their squared norms decide."""
    return isinstance(clip, (nn.ClipGradByGlobalNorm, HybridParallelClipGrad, GroupShardedClipGrad))


def clipping_kind(parameter: paddle.Tensor) -> tuple[bool, ...]:
    """Return what Paddle's clippings by the global norm ask of a parameter: those of one kind are clipped alike."""
    return (
        getattr(parameter, "need_clip", True) is not False,
        bool(getattr(parameter, "is_distributed", False)),
        bool(getattr(parameter, "is_firstly_shared", True)),
        hasattr(parameter, "unslice"),
    )


class AdamWNumbers(NamedTuple):
    """What AdamW's formula has beside learning rates."""

    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float


def adamw_numbers(optimizer: Any) -> AdamWNumbers | None:
    """Return the numbers of an AdamW (`_beta1`, `_beta2`, `_epsilon`, `_weight_decay`).

    Args:
        optimizer: Paddle's AdamW, or a subclass of it, as training calls it.

    Returns:
        None where it computes more than the formula: the largest of the second moments (`_amsgrad`), ratios by layer
        (`_lr_ratio`), what is one flat piece of memory (`_use_fusion_storage`), numbers that are tensors.
    """
    inner = innermost(optimizer)
    numbers = AdamWNumbers(inner._beta1, inner._beta2, inner._epsilon, inner._weight_decay)
    if inner._amsgrad or inner._lr_ratio is not None or inner._use_fusion_storage:
        return None
    return numbers if all(isinstance(number, (int, float)) for number in numbers) else None


def decay_rule(optimizer: Any) -> Callable[[str], bool]:
    """Return what tells, by Paddle's name of a parameter, whether it decays (`_apply_decay_param_fun`)."""
    return innermost(optimizer)._apply_decay_param_fun or (lambda name: True)


def replace_updates(optimizer: Any, update: Callable[[Gradients], bool]) -> None:
    """Let something else move all parameters of a step at once (`_append_optimize_op`, `_finish_update`).

    Args:
        optimizer: as training calls it.
        update: takes the parameters that the optimizer is about to move, which have all their states by now, with their
            clipped gradients; returns whether it has moved them. Where not, the optimizer does.
    """
    inner = innermost(optimizer)
    move, pending = inner._append_optimize_op, []

    def collect(block: Any, pair: Any) -> None:
        pending.append((block, pair))

    def finish(block: Any, pairs: Any) -> None:
        del block, pairs  # all that there were, those without a gradient too
        collected = [*pending]
        pending.clear()
        in_groups = any(isinstance(pair, dict) for _, pair in collected)
        if collected and (in_groups or not update([pair for _, pair in collected])):
            for block_of_one, pair in collected:
                move(block_of_one, pair)

    inner._append_optimize_op, inner._finish_update = collect, finish


def squared_norm(gradient: paddle.Tensor) -> paddle.Tensor:
    """Compute the sum of a gradient's squares in float32, as Paddle's clipping does of float32 (`_squared_l2_norm`).

    In float16, which ends at 65,504, it would be infinite for norms above 256.

    Args:
        gradient: float[...].

    Returns:
        float32[].
    """
    if gradient.dtype == paddle.float32:
        return nn.clip._squared_l2_norm(gradient).reshape([])
    # In pieces: a float32 copy of an embedding's gradient takes gigabytes.
    pieces = gradient.flatten().split([*_sizes_of_pieces(gradient.size)])
    return paddle.add_n([nn.clip._squared_l2_norm(piece.astype("float32")).reshape([]) for piece in pieces])


def unscale_added_gradients(scaler: paddle.amp.GradScaler) -> None:
    """Let a loss's scaler unscale the gradients that are added up in float32 (`main_grad`) beside the model's own.

    Paddle's own unscales the latter, which are empty then: steps would be clipped by a scaled norm, and none would be
    left out where gradients have overflown (`_unscale`, `_found_inf`).

    Args:
        scaler: of a run whose ranks have all gradients; changed in place.
    """

    def unscale(optimizer: Any) -> None:
        added = [each.main_grad for each in updated_parameters(optimizer) if each.main_grad is not None]
        scaler._found_inf = paddle.zeros([1], dtype="bool")
        if added:
            paddle._legacy_C_ops.check_finite_and_unscale(added, scaler._scale, added, scaler._found_inf)

    scaler._unscale = unscale


def loss_scale(scaler: paddle.amp.GradScaler) -> float:
    """Return what the loss of the next step is multiplied by (`_scale`)."""
    return float(scaler._scale.item())


def has_overflown(scaler: paddle.amp.GradScaler) -> bool:
    """Tell whether the last step was left out because its gradients were not finite (`_cache_found_inf`)."""
    return bool(scaler._cache_found_inf)


def silence_updates(scaler: paddle.amp.GradScaler) -> None:
    """Let a loss's scaler halve its scale without writing to standard output, where it names no step (`_update`)."""
    update = scaler._update

    def update_in_silence() -> None:
        with redirect_stdout(io.StringIO()):
            update()

    scaler._update = update_in_silence


# Stages 2 and 3 of sharding.


def rank_in_group(optimizer: Any) -> int:
    """Return this rank's place in the sharding group (`_group`) of an optimizer of stage 2 or 3."""
    return optimizer._group.rank


def wrapped_optimizer(wrapped: GroupShardedStage3) -> Any:
    """Return the optimizer whose `step` stage 3 has put its own in the place of (`_optim`)."""
    return wrapped._optim


def piece_of(wrapped: GroupShardedStage3, parameter: paddle.Tensor) -> tuple[int, int] | None:
    """Return where this rank's piece begins and ends in the flat parameter (`_param2buffer`, `_rank`).

    Args:
        wrapped: the model as training calls it.
        parameter: of the model.

    Returns:
        Both places; None for a parameter that stage 3 leaves whole.
    """
    pieces = wrapped._param2buffer.get(parameter.name)
    return None if pieces is None else pieces[wrapped._rank]


def early_gathers(wrapped: GroupShardedStage3) -> dict[str, tuple[paddle.Tensor, Any]]:
    """Return what is being gathered ahead of its turn, by Paddle's names (`_task_flow`), with tasks to wait on."""
    return wrapped._task_flow.full_param


def is_whole(parameter: paddle.Tensor) -> bool:
    """Tell whether a parameter that stage 3 has cut holds all its numbers now (`_is_initialized`)."""
    return parameter._is_initialized()


def gather_piece(wrapped: GroupShardedStage3, parameter: paddle.Tensor) -> None:
    """Put a parameter together from all ranks' pieces, in the CPU's memory; all ranks must call it.

    Args:
        wrapped: the model as training calls it.
        parameter: that stage 3 has cut.
    """
    size = wrapped._param2buffer_size[parameter.name]
    flat, task = group_sharded_stage3._all_gather(parameter.fw_storage, size, wrapped._group)
    task.wait()
    flat._slice(0, parameter._numel()).cpu()._share_buffer_to(parameter)


def fill_piece(parameter: paddle.Tensor, numbers: paddle.Tensor) -> None:
    """Write this rank's piece of a parameter, float[n], of whose storage what lies behind is padding (`_slice`)."""
    parameter.fw_storage._slice(0, numbers.shape[0]).set_value(numbers)


def free(parameter: paddle.Tensor) -> None:
    """Give up the whole numbers of a parameter that stage 3 has cut; its piece stays (`_clear_data`)."""
    parameter._clear_data()


def _sizes_of_pieces(size: int) -> Iterator[int]:
    yield from (min(PIECE, size - start) for start in range(0, size, PIECE))


def _inside(optimizer: Any) -> Any:
    for name in ("_inner_opt", "_optim"):
        inner = optimizer.__dict__.get(name)
        if inner is not None and inner is not optimizer:  # stage 3 lets an optimizer wrap itself
            return inner
    return None
