"""Rules that values must keep together, with this machine, and with what is built so far. One row, one rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from paddlemix.configuration.best_metric import LOSS, formats_of, is_known_metric, may_give, metric_name
from paddlemix.configuration.groups import (
    BOUNDS,
    DEGREES_NOT_YET,
    EXCLUSIVE,
    FREEZE_KEYS,
    FREEZE_SEEING,
    FREEZE_SWITCHES,
    GIVEN_SWITCHES,
    HALF_PRECISION_SWITCHES,
    NEEDS,
    NOT_YET_SWITCHES,
)
from paddlemix.configuration.intervals import times
from paddlemix.configuration.layer_names import ALL_LINEAR, layer_patterns
from paddlemix.evaluation.score_names import ALL_SCORES, SCORES, section_of

Values = Mapping[str, Any]

SHARES_GRADIENTS = ("stage2", "stage3")
STAGES = ("", "stage1", *SHARES_GRADIENTS)


@dataclass(frozen=True)
class Rule:
    """One thing that makes a config unusable although each value is of the right type.

    Attributes:
        keys: the keys it reads; the error stands at the first of them that was given.
        breaks: whether their values, given in this order, break it.
        sentence: what is wrong and what to change; `{key}` stands for the value of that key.
        only_if_given: whether it is about the first key being given at all.
    """

    keys: tuple[str, ...]
    breaks: Callable[..., Any]
    sentence: str
    only_if_given: bool = False

    def broken(self, values: Values) -> bool:
        """Tell whether these values break it."""
        return bool(self.breaks(*(values[key] for key in self.keys)))

    def applies(self, values: Values, given: Collection[str]) -> bool:
        """Tell whether to report it. A rule over a key without a valid value says nothing."""
        if self.only_if_given and self.keys[0] not in given:
            return False
        return all(key in values for key in self.keys) and self.broken(values)


def evaluates(values: Values) -> bool:
    """Tell whether a run evaluates: an `evaluation_strategy` switches evaluation on, as in PaddleNLP."""
    return _evaluates(values["do_eval"], values["evaluation_strategy"])


def adapts_language_alone(targets: str | list[str] | None) -> bool:
    """Tell whether `lora_target_modules` leaves vision tower and aligner without adapters, and says so for all."""
    return targets is None or layer_patterns(targets) == [ALL_LINEAR]


def recomputes(values: Values, part: str) -> bool:
    """Tell whether the blocks of a part, "vit" or "llm", are computed twice."""
    own = values[f"recompute_{part}"]
    return values["recompute"] if own is None else own


def weights_dtype(values: Values) -> str:
    """Return the precision in which a run holds its weights.

    O1 keeps float32 weights and computes in half precision where that is safe, unless `dtype` says otherwise; O2 holds
    the weights in it too.
    """
    if values["dtype"] is not None:
        return values["dtype"]
    if values["fp16_opt_level"] != "O2":
        return "float32"
    return "bfloat16" if values["bf16"] else "float16" if values["fp16"] else "float32"


def adds_in_float32(values: Values) -> bool:
    """Tell whether gradients are added up in float32 beside weights that are held in half precision.

    In half precision a sum loses what is smaller than 2**-8 of it (bfloat16), so that of 16 forward passes the last
    add little; and Paddle sums the squares of float16 gradients in float16, where a norm above 256 is infinite.
    """
    own = values["amp_master_grad"]
    if own is not None:
        return own and computes_in_half(values)  # float32 gradients need nothing beside them
    if not computes_in_half(values) or weights_dtype(values) == "float32":
        return False
    return values["fp16"] or values["gradient_accumulation_steps"] > 1


def computes_in_half(values: Values) -> bool:
    """Tell whether a run computes in half precision by autocast, without which no gradients are added beside others."""
    return values["bf16"] or values["fp16"]


def loses_gradients(values: Values) -> bool:
    """Tell whether the gradients of several forward passes are added up in half precision, as the config says."""
    holds_half = weights_dtype(values) != "float32"
    return holds_half and values["gradient_accumulation_steps"] > 1 and not adds_in_float32(values)


def find_broken_rules(
    values: Values, given: Collection[str], *, has_gpu: bool, before_ampere: bool = False
) -> list[Rule]:
    """Find all rules that the values break.

    Args:
        values: the valid values, defaults included.
        given: the keys that the user gave.
        has_gpu: whether Paddle can use a GPU here.
        before_ampere: whether that GPU is one of compute capability below 8.0.

    Returns:
        The broken rules, in the order of the tables below.
    """
    rules = NOT_YET + CONSISTENCY
    if not has_gpu or chooses_cpu(values):
        rules += NEEDS_GPU
    else:
        rules += ONE_PRECISION
        rules += NEEDS_AMPERE if before_ampere else ()
    return [rule for rule in rules if rule.applies(values, given)]


def chooses_cpu(values: Values) -> bool:
    """Tell whether a config asks for the CPU."""
    device = values.get("device")
    return device.startswith("cpu") if device else bool(values.get("no_cuda"))


def _evaluates(do_eval: bool, strategy: str) -> bool:
    return do_eval or strategy != "no"


def _strategy(do_eval: bool, strategy: str) -> str:
    # PaddleNLP evaluates by steps where do_eval is true and no strategy is set.
    return "steps" if do_eval and strategy == "no" else strategy


def _saves_between_evaluations(
    keeps_best: bool, save_steps: float, eval_steps: float | None, logging_steps: float, strategy: str, do_eval: bool
) -> bool:
    if not keeps_best or _strategy(do_eval, strategy) != "steps":
        return False
    return times(save_steps, eval_steps or logging_steps) is None


def _is_score_of_no_set(section: str) -> Callable[..., bool]:
    return lambda metric, generates, dataset, do_eval, strategy: (
        generates
        and _evaluates(do_eval, strategy)
        and section_of(metric_name(metric)) == section
        and not may_give(dataset.eval, metric)
    )


# What later work brings; refused until then: a key that is silently ignored costs a training run.
NOT_YET: tuple[Rule, ...] = (
    *(
        Rule(
            (key,),
            lambda degree: degree > 1,
            f"`{key}` is {{{key}}}, but splitting a model over cards in this way is not available yet. Set it to 1: "
            "several cards train with data parallelism, and `tensor_parallel_degree` splits a model's layers.",
        )
        for key in DEGREES_NOT_YET
    ),
    Rule(
        ("sharding_parallel_config",),
        str.strip,
        '`sharding_parallel_config` is "{sharding_parallel_config}", but none of its switches is available yet. Set it '
        'to "".',
    ),
    Rule(
        ("sharding",),
        lambda sharding: "offload" in sharding.split(),
        '`sharding` is "{sharding}", but PaddleNLP 3.0.0b4 does not support offloading. Set it to "stage3", which '
        "keeps least on each card.",
    ),
    *(
        Rule((key,), bool, f"`{key}` is true, but that is not available yet. Set it to false.")
        for key in NOT_YET_SWITCHES
    ),
    Rule(
        ("refined_recompute",),
        bool,
        '`refined_recompute` is "{refined_recompute}", but blocks are recomputed as a whole. Take the key out; '
        "`recompute_vit` and `recompute_llm` choose the part.",
    ),
    Rule(
        ("wandb_api_key",),
        bool,
        "`wandb_api_key` is given, but curves are logged with VisualDL only. Take the key out.",
    ),
)


def _wanted(switch: str) -> str:
    return "set" if switch in GIVEN_SWITCHES else "true"


CONSISTENCY: tuple[Rule, ...] = (
    *(
        Rule(
            (key, switch),
            lambda _, switch: not switch,
            f"`{key}` has no effect unless `{switch}` is {_wanted(switch)}. Take the key out, or set `{switch}`"
            f"{'' if switch in GIVEN_SWITCHES else ' to true'}.",
            only_if_given=True,
        )
        for switch, keys in NEEDS.items()
        for key in keys
    ),
    *(
        Rule(
            pair,
            lambda one, other: one and other,
            "`{}` and `{}` are both true; expected at most one. Set one of them to false.".format(*pair),
        )
        for pair in EXCLUSIVE
    ),
    *(
        Rule(
            (key, "fp16_opt_level"),
            lambda is_on, level: is_on and level == "O0",
            f'`{key}` is true while `fp16_opt_level` is "O0", at which all is computed in float32. Set that to "O1" or '
            f'"O2", or `{key}` to false.',
        )
        for key in ("bf16", "fp16")
    ),
    Rule(
        ("amp_master_grad", "fp16", "fp16_opt_level", "dtype", "max_grad_norm"),
        lambda adds, fp16, level, dtype, norm: (
            adds is False and fp16 and (level == "O2" or dtype == "float16") and norm > 0
        ),
        "`amp_master_grad` is false while `fp16` is true, but Paddle sums the squares of float16 gradients in float16: "
        "norms above 256 become infinite, and `max_grad_norm` cuts such gradients to zero. Take the key out.",
    ),
    *(
        Rule(
            (low, high),
            lambda low, high: None not in (low, high) and low > high,
            f"`{low}` is {{{low}}}, more than `{high}`, which is {{{high}}}. Lower one or raise the other.",
        )
        for low, high in BOUNDS
    ),
    Rule(
        ("resized_height", "resized_width"),
        lambda height, width: (height is None) != (width is None),
        "one of `resized_height` and `resized_width` is set; set both or none.",
    ),
    Rule(
        ("fps", "nframes"),
        lambda fps, nframes: None not in (fps, nframes),
        "`fps` and `nframes` are both set, but only one of them can choose a video's frames. Take one of them out.",
    ),
    Rule(
        ("tensor_parallel_degree", "lora"),
        lambda degree, lora: degree > 1 and lora,
        "`tensor_parallel_degree` is {tensor_parallel_degree} while `lora` is true, but adapters are not split over "
        "cards. Set it to 1: several cards train adapters with data parallelism.",
    ),
    Rule(
        ("quantize", "lora", "do_train"),
        lambda quantize, lora, do_train: quantize is not None and do_train and not lora,
        '`quantize` is "{quantize}" while `lora` is false, but quantised weights are not trained. Set `lora` to true, '
        "which trains adapters on them; or take `quantize` out.",
    ),
    Rule(
        ("quantize", "tensor_parallel_degree"),
        lambda quantize, degree: quantize is not None and degree > 1,
        '`quantize` is "{quantize}" while `tensor_parallel_degree` is {tensor_parallel_degree}, but quantised layers '
        "are not split over cards. Set the degree to 1: several cards train adapters with data parallelism.",
    ),
    Rule(
        ("quantize", "lora_dora"),
        lambda quantize, dora: quantize is not None and dora,
        '`lora_dora` is true while `quantize` is "{quantize}", but DoRA needs the numbers of the weights. Take one of '
        "them out.",
    ),
    Rule(
        ("added_tokens", "new_tokens"),
        lambda added, new: added == "text" and new,
        '`added_tokens` is "text" while `new_tokens` is given, so that no text would ever hold one of them. Take '
        "`added_tokens` out.",
    ),
    Rule(
        ("tensor_parallel_degree", "new_tokens"),
        lambda degree, tokens: degree > 1 and tokens,
        "`tensor_parallel_degree` is {tensor_parallel_degree} while `new_tokens` is given, but rows are added to whole "
        "models only. Add them in a run with a degree of 1 and `max_steps` 1, and go on from its `output_dir` without "
        "`new_tokens`; `new_tokens_multiple` lets the degree divide the rows.",
    ),
    Rule(
        ("tensor_parallel_degree", "sharding"),
        lambda degree, sharding: degree > 1 and sharding.strip() not in ("", "stage1"),
        '`tensor_parallel_degree` is {tensor_parallel_degree} while `sharding` is "{sharding}", but Paddle clips '
        'gradients right only beside stage 1. Set `sharding` to "stage1", or the degree to 1.',
    ),
    Rule(
        ("tensor_parallel_config",),
        lambda config: "enable_" in config,
        '`tensor_parallel_config` is "{tensor_parallel_config}", but the models\' own layers know none of the enable_ '
        "options. Take them out; sync_param, sync_grad and sync_moment work.",
    ),
    Rule(
        ("do_train", "do_eval", "evaluation_strategy"),
        lambda do_train, do_eval, strategy: not do_train and not _evaluates(do_eval, strategy),
        "nothing to do: `do_train` and `do_eval` are both false. Set at least one of them to true.",
    ),
    Rule(
        ("do_train", "dataset"),
        lambda do_train, dataset: do_train and not dataset.train,
        "`do_train` is true, but `dataset.train` lists no records. Add a record set, or set `do_train` to false.",
    ),
    Rule(
        ("do_eval", "evaluation_strategy", "dataset"),
        lambda do_eval, strategy, dataset: _evaluates(do_eval, strategy) and not dataset.eval,
        "`do_eval` or `evaluation_strategy` asks for evaluation, but `dataset.eval` lists no records. Add a record "
        'set, or set `do_eval` to false and `evaluation_strategy` to "no".',
    ),
    Rule(
        ("dataset", "mix_strategy"),
        lambda dataset, strategy: strategy == "concat" and any(one.weight is not None for one in dataset.train),
        'a set of `dataset.train` has a `weight`, which has no effect while `mix_strategy` is "concat". Set it to '
        '"interleave_under" or "interleave_over", or take `weight` out; `repeat` makes a set count more.',
    ),
    Rule(
        ("dataset",),
        lambda dataset: any(one.weight is not None or one.repeat != 1 for one in dataset.eval),
        "a set of `dataset.eval` has a `weight` or `repeat`, but evaluation goes through all records once. Take the "
        "key out.",
    ),
    Rule(
        ("group_by_length", "mixtoken"),
        lambda groups, packs: groups and packs,
        "`group_by_length` and `mixtoken` are both true; expected at most one: packs have no padding to save. Set "
        "`group_by_length` to false.",
    ),
    Rule(
        ("group_by_length", "shuffle"),
        lambda groups, shuffles: groups and not shuffles,
        "`group_by_length` is true and `shuffle` false, which keeps the order of the files; expected at most one. Set "
        "`group_by_length` to false, or take `shuffle` out.",
    ),
    Rule(
        ("mixtoken_window", "shuffle"),
        lambda _, shuffles: not shuffles,
        "`mixtoken_window` has no effect while `shuffle` is false: packs are filled in the order of the files. Take "
        "the key out.",
        only_if_given=True,
    ),
    *(
        Rule(
            (key, "lora", "lora_target_modules", "lora_modules_to_save"),
            lambda freezes, lora, targets, whole, sees=key in FREEZE_SEEING: (
                freezes and lora and not (sees and adapts_language_alone(targets) and not whole)
            ),
            f"`{key}` has no effect while `lora` is true: all but the adapters is frozen. Take the key out; "
            "`lora_modules_to_save` names layers that are trained besides.",
        )
        for key in FREEZE_KEYS
    ),
    Rule(
        (*FREEZE_SWITCHES, "freeze_exclude", "do_train"),
        lambda vit, llm, aligner, excluded, do_train: do_train and vit and llm and aligner and not excluded,
        "`freeze_vit`, `freeze_llm` and `freeze_aligner` are all true, which leaves nothing to train. Set one of them "
        "to false, or name what to train in `freeze_exclude`.",
    ),
    Rule(
        ("load_best_model_at_end", "save_strategy", "evaluation_strategy", "do_eval"),
        lambda keeps_best, saves, strategy, do_eval: keeps_best and _strategy(do_eval, strategy) != saves,
        '`load_best_model_at_end` needs an evaluation with every checkpoint, but `save_strategy` is "{save_strategy}" '
        'and `evaluation_strategy` is "{evaluation_strategy}". Set both to the same value.',
    ),
    Rule(
        ("load_best_model_at_end", "save_steps", "eval_steps", "logging_steps", "evaluation_strategy", "do_eval"),
        _saves_between_evaluations,
        "`load_best_model_at_end` needs an evaluation with every checkpoint, but `save_steps`, which is {save_steps}, "
        "is no multiple of `eval_steps` (`logging_steps` if that is null). Make it one.",
    ),
    Rule(
        ("predict_with_generate", "do_eval", "evaluation_strategy"),
        lambda generates, do_eval, strategy: generates and not _evaluates(do_eval, strategy),
        "`predict_with_generate` has no effect without an evaluation. Set `do_eval` to true, or `evaluation_strategy` "
        'to "steps" or "epoch".',
    ),
    Rule(
        ("predict_with_generate", "sharding"),
        lambda generates, sharding: generates and "stage3" in sharding,
        '`predict_with_generate` is true and `sharding` is "{sharding}": each rank holds a part of every layer, and '
        "ranks that write answers of other lengths would wait for one another for ever. Set `predict_with_generate` to "
        'false, or `sharding` to "stage2".',
    ),
    Rule(
        ("metric_for_best_model", "predict_with_generate"),
        lambda metric, generates: metric_name(metric) != LOSS and not generates,
        '`metric_for_best_model` is "{metric_for_best_model}", but evaluation gives the loss alone. Set '
        '`predict_with_generate` to true, or the metric to "loss".',
    ),
    Rule(
        ("metric_for_best_model", "predict_with_generate"),
        lambda metric, generates: generates and not is_known_metric(metric),
        '`metric_for_best_model` is "{metric_for_best_model}", which no evaluation gives. Set it to "loss" or one of '
        f"{', '.join(ALL_SCORES)}.",
    ),
    *(
        Rule(
            ("metric_for_best_model", "predict_with_generate", "dataset", "do_eval", "evaluation_strategy"),
            _is_score_of_no_set(section),
            f'`metric_for_best_model` is "{{metric_for_best_model}}", but no set of `dataset.eval` can have {section} '
            f'scores. Add one of these formats: {", ".join(formats_of(section))}; or choose another score, or "loss".',
        )
        for section in SCORES
    ),
    Rule(
        ("early_stopping_patience", "load_best_model_at_end"),
        lambda patience, keeps_best: patience is not None and not keeps_best,
        "`early_stopping_patience` is {early_stopping_patience}, but the best evaluation is not kept. Set "
        "`load_best_model_at_end` to true.",
    ),
    Rule(
        ("early_stopping_threshold", "early_stopping_patience"),
        lambda _, patience: patience is None,
        "`early_stopping_threshold` has no effect unless `early_stopping_patience` is set. Set it, or take the key "
        "out.",
        only_if_given=True,
    ),
    *(
        Rule(
            (key, "lr_scheduler_type"),
            lambda warmup, scheduler: scheduler == "constant" and warmup > 0,
            f'`{key}` is {{{key}}}, which has no effect while `lr_scheduler_type` is "constant". Set that to '
            f'"constant_with_warmup", or `{key}` to 0.',
            only_if_given=True,
        )
        for key in ("warmup_ratio", "warmup_steps")
    ),
    Rule(
        ("lr_scheduler_type", "learning_rate", "lr_end"),
        lambda scheduler, rate, end: scheduler == "polynomial" and rate <= end,
        "`learning_rate` is {learning_rate}, not above `lr_end`, which is {lr_end} and to which the rate falls while "
        '`lr_scheduler_type` is "polynomial". Raise the one or lower the other.',
    ),
    Rule(
        ("max_steps", "do_train"),
        lambda steps, do_train: do_train and steps == 0,
        "`max_steps` is 0, and a run without a step trains nothing. Raise it, or take the key out: "
        "`num_train_epochs` decides then.",
    ),
    Rule(
        ("device",),
        lambda device: device is not None and not re.fullmatch(r"cpu|gpu(:\d+)?", device),
        '`device` is "{device}"; expected "cpu", "gpu" or one card, such as "gpu:1". Leave the key out to take a GPU '
        "where Paddle has one.",
    ),
    Rule(
        ("sharding",),
        lambda sharding: "offload" not in sharding.split() and sharding.strip() not in STAGES,
        '`sharding` is "{sharding}"; expected "stage1", "stage2", "stage3" or "".',
    ),
    Rule(
        ("release_grads", "sharding"),
        lambda releases, sharding: releases and sharding.strip() in SHARES_GRADIENTS,
        '`release_grads` is true while `sharding` is "{sharding}", which frees gradients in its own way. Take the key '
        "out.",
    ),
    Rule(
        ("sharding_parallel_degree", "sharding"),
        lambda degree, sharding: degree > 1 and not sharding.strip(),
        '`sharding_parallel_degree` is {sharding_parallel_degree}, which has no effect while `sharding` is "". Set '
        'that to "stage1", "stage2" or "stage3", or take the key out.',
    ),
    Rule(
        ("sharding_degree",),
        lambda degree: degree > 0,
        "`sharding_degree` is PaddleNLP's old name. Call it `sharding_parallel_degree`.",
    ),
    Rule(
        ("report_to",),
        lambda reporters: isinstance(reporters, list) and len(set(reporters)) > 1,
        '`report_to` lists "none" beside "visualdl"; expected one of them. Take the other out.',
    ),
)

# Paddle's CPU build has no bf16 or fp16 kernels, and AMP does nothing there without saying so. Sharding asserts.
NEEDS_GPU: tuple[Rule, ...] = (
    *(
        Rule(
            (key,),
            bool,
            f"`{key}` is true, but this run has no GPU, and Paddle's CPU build has no kernels for half precision. "
            f'Set "{key}": false (or add --{key} false) to compute in float32; "cpu_compute_dtype": "bfloat16" '
            "computes products from bfloat16.",
        )
        for key in HALF_PRECISION_SWITCHES
    ),
    Rule(
        ("dtype",),
        lambda dtype: dtype in ("bfloat16", "float16"),
        '`dtype` is "{dtype}", but this run has no GPU, and Paddle\'s CPU build has no kernels for it. '
        'Set "dtype": "float32" (or add --dtype float32); "cpu_compute_dtype": "bfloat16" computes products from '
        "bfloat16.",
    ),
    Rule(
        ("sharding",),
        lambda sharding: sharding.strip() in SHARES_GRADIENTS,
        '`sharding` is "{sharding}", but this run has no GPU, and Paddle\'s CPU build has stage 1 alone. Set '
        '"sharding": "stage1" (or add --sharding stage1).',
    ),
    Rule(
        ("device",),
        lambda device: (device or "").startswith("gpu"),
        '`device` is "{device}", but Paddle sees no GPU here. Leave the key out, or set it to "cpu".',
    ),
)

# What a GPU would do without a word: cast weights at O2 whatever they were, compute with two kinds of half precision in
# float32, and lose gradients that no scale of the loss keeps from float16's end.
ONE_PRECISION: tuple[Rule, ...] = (
    *(
        Rule(
            ("dtype", key),
            lambda dtype, computes, other=other: computes and dtype == other,
            f'`dtype` is "{other}" while `{key}` is true; expected one kind of half precision. Take `dtype` out, or '
            f"set `{instead}` to true and `{key}` to false.",
        )
        for key, other, instead in (("bf16", "float16", "fp16"), ("fp16", "bfloat16", "bf16"))
    ),
    Rule(
        ("dtype", "fp16_opt_level", "bf16", "fp16"),
        lambda dtype, level, bf16, fp16: dtype == "float32" and level == "O2" and (bf16 or fp16),
        '`dtype` is "float32" while `fp16_opt_level` is "O2", which holds weights in half precision. Take `dtype` out, '
        'or set `fp16_opt_level` to "O1".',
    ),
    Rule(
        ("dtype", "bf16", "fp16", "do_train"),
        lambda dtype, bf16, fp16, trains: dtype == "float16" and not (bf16 or fp16) and trains,
        '`dtype` is "float16" while `fp16` is false: gradients vanish in float16 where no scale of the loss keeps them '
        'large. Set "fp16": true (or add --fp16 true).',
    ),
)

# Below it Paddle's autocast computes in float32 after a warning (O1), and the first norm fails (O2).
_NO_BFLOAT16 = "but bfloat16 needs a card of compute capability 8.0 (Ampere) or later, and this one is older."
NEEDS_AMPERE: tuple[Rule, ...] = (
    *(
        Rule(
            (key,),
            bool,
            f'`{key}` is true, {_NO_BFLOAT16} Set "{key}": false and "{instead}": true (or add --{key} false '
            f"--{instead} true), which computes there without flash attention.",
        )
        for key, instead in EXCLUSIVE
    ),
    Rule(
        ("dtype",),
        lambda dtype: dtype == "bfloat16",
        f'`dtype` is "bfloat16", {_NO_BFLOAT16} Set "dtype": "float16" and "fp16": true (or add --dtype float16 '
        "--fp16 true).",
    ),
)
