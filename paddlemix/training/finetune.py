"""A fine-tuning run, from a checked config to a saved model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX, AutoTokenizerMIX
from paddlemix.checkpoints.write_failure import write_failure
from paddlemix.configuration.arguments import DataArguments, DatasetItem, FinetuneConfig, ModelArguments
from paddlemix.configuration.rules import evaluates, recomputes
from paddlemix.datasets.batching import Batching
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.files import write_json
from paddlemix.hub import local_folder
from paddlemix.models.registry import Family, find_family
from paddlemix.names import END_OF_TURN
from paddlemix.ops import set_compute_dtype
from paddlemix.peft.folders import is_adapter
from paddlemix.training.freezing import any_matches, freeze

if TYPE_CHECKING:
    from paddlenlp.trainer import TrainingArguments

    from paddlemix.training.answer_evaluation import AnswerEvaluation
    from paddlemix.training.callbacks.early_stopping import EarlyStopping
    from paddlemix.training.sft import SFTTrainer

logger = logging.getLogger(__name__)


def load_processor(model: ModelArguments, data: DataArguments) -> Any:
    """The checkpoint's processor with the config's bounds.

    Args:
        model: says where the checkpoint is.
        data: says how large images, videos and records may be.

    Returns:
        The family's processor.

    Raises:
        OSError: there is no such checkpoint, it cannot be fetched, or a file of its tokenizer is missing.
        ValueError: config.json names no known model, or the checkpoint is an adapter.
    """
    if is_adapter(local_folder(model.model_name_or_path)):
        raise ValueError(
            f"`model_name_or_path` {model.model_name_or_path} is an adapter; merge it into its base first with "
            "paddlemix/tools/merge_lora_params.py, or name the base."
        )
    return AutoProcessorMIX.from_pretrained(
        model.model_name_or_path,
        **data.media_settings,
        max_length=data.max_length,
        truncate_text=data.on_overlong == "truncate_text",
    )


def load_datasets(config: FinetuneConfig, processor: Any) -> tuple[MixDataset | None, MixDataset | None]:
    """The sets to train on and to evaluate on, every record checked; None where the run does not need them.

    Args:
        config: lists the sets.
        processor: measures and encodes the records.

    Returns:
        The mixture for training and that for evaluation.

    Raises:
        FileNotFoundError: a record file is missing.
        ValueError: records are bad and `on_bad_record` is "raise".
    """
    data = config.data
    mixing = {"strategy": data.mix_strategy, "seed": config.training["seed"]}
    train = _load_mix(data.dataset.train, processor, data, **mixing) if config.training["do_train"] else None
    evaluation = _load_mix(data.dataset.eval, processor, data) if evaluates(config.training) else None
    return train, evaluation


def sampling_of(data: DataArguments) -> Batching:
    """How the config wants batches to be drawn."""
    return Batching(
        pack_tokens=data.max_length if data.mixtoken else None,
        window=data.mixtoken_window,
        group_by_length=data.group_by_length,
        loss_per=data.loss_per,
    )


def load_model(model: ModelArguments, args: TrainingArguments) -> Any:
    """The checkpoint's model, frozen or with adapters where the config says so, and how this process computes.

    Args:
        model: says where the checkpoint is, and what to train.
        args: say the precision, and the seed of adapters.

    Returns:
        The model.

    Raises:
        OSError: there is no such checkpoint, it cannot be fetched, or a file of it is missing.
        ValueError: config and weights do not fit, a pattern of what to train matches nothing, or so many ranks cannot
            share the model.
    """
    if not set_compute_dtype(model.cpu_compute_dtype):
        logger.warning(
            "`cpu_compute_dtype` is bfloat16, but float32 is what can be had here; `python -m paddlemix.ops` tells why."
        )
    loaded = AutoModelMIX.from_pretrained(
        model.model_name_or_path,
        dtype=model.dtype or weights_dtype(args),
        tensor_parallel_degree=max(args.tensor_parallel_degree, 1),
    )
    family = find_family(local_folder(model.model_name_or_path))
    is_base = model.lora and not _knows_turns(loaded, model.model_name_or_path)
    return choose_trained(loaded, family, model, is_base=is_base, seed=args.seed)


def choose_trained(loaded: Any, family: Family, keys: ModelArguments, *, is_base: bool, seed: int) -> Any:
    """Freeze a model, or put adapters on it, as the config says.

    Args:
        loaded: as its checkpoint has it.
        family: the model's.
        keys: say what to train.
        is_base: whether the model has never seen the tokens of turns.
        seed: of adapters.

    Returns:
        The model, or one with adapters around it.

    Raises:
        ValueError: a pattern of what to train matches nothing.
    """
    if keys.lora:
        from paddlemix.training.lora import add_adapters  # takes a second, so only once it is needed

        loaded = add_adapters(loaded, family, keys, is_base=is_base, seed=seed)
    loaded.begin_tuning_on_turns()
    # A model whose head is its embedding has no parameters of that name.
    switched = [glob for glob in _switched_globs(keys, family) if any_matches(loaded, glob)]
    freeze(loaded, [*(keys.freeze_include or []), *switched], keys.freeze_exclude)
    return loaded


def set_learning_rates(model: Any, config: FinetuneConfig) -> dict[str, float]:
    """Give the vision tower and the aligner the learning rates that the config has for them.

    Args:
        model: of `load_model`.
        config: says the rates.

    Returns:
        By each key that is set its rate as a multiple of `learning_rate`.

    Raises:
        ValueError: a key is set, but nothing of its part is trained.
    """
    from paddlemix.training.rates import set_module_rates  # takes a second, so only once it is needed

    return set_module_rates(model, find_family(local_folder(config.model.model_name_or_path)), config.training)


def set_recompute(model: Any, config: FinetuneConfig) -> None:
    """Let the parts of a model that the config names compute their activations twice and not keep them.

    Args:
        model: of `load_model`.
        config: says which.
    """
    model.set_recompute(vision=recomputes(config.training, "vit"), language=recomputes(config.training, "llm"))


def prepare_resume(args: TrainingArguments) -> str | None:
    """Clear away what a killed run has left half done, and choose the checkpoint to go on from.

    Args:
        args: of the run; made, so that ranks can talk to one another.

    Returns:
        The checkpoint's folder, the same in all ranks; None where training begins at its start.

    Raises:
        ValueError: there are checkpoints, but none that can be gone on from.
    """
    from paddlemix.checkpoints.store import CheckpointStore, choose_checkpoint
    from paddlemix.distributed.ranks import from_first

    def decide() -> str:
        store = CheckpointStore(args.output_dir)
        store.clear_leftovers()
        return str(choose_checkpoint(store, args.resume_from_checkpoint) or "")

    return from_first(decide) or None


def early_stopping_of(training: Mapping[str, Any]) -> EarlyStopping | None:
    """When the config wants training to stop before its end; None for never."""
    from paddlemix.training.callbacks.early_stopping import EarlyStopping

    patience = training["early_stopping_patience"]
    return EarlyStopping(patience, training["early_stopping_threshold"]) if patience else None


def answer_evaluation_of(
    config: FinetuneConfig, processor: Any, evaluation: MixDataset | None, ranks: int
) -> AnswerEvaluation | None:
    """How the config wants the model's answers to be evaluated; None where it does not.

    Args:
        config: checked.
        processor: of the model's family.
        evaluation: the sets to answer.
        ranks: how many processes share them.

    Returns:
        The evaluation.
    """
    training = config.training
    if evaluation is None or not training["predict_with_generate"]:
        return None
    from paddlemix.training.answer_evaluation import AnswerEvaluation

    rows, batches = training["per_device_eval_batch_size"], training["max_evaluate_steps"]
    return AnswerEvaluation(
        evaluation,
        processor,
        max_new_tokens=training["max_new_tokens"],
        batch_size=rows,
        limit=batches * rows * ranks if batches > 0 else None,
    )


def save_results(trainer: SFTTrainer, metrics: dict[str, float]) -> None:
    """Write the model with its processor, the metrics and the loss curve into `output_dir`; rank 0 writes.

    Args:
        trainer: that has trained or evaluated.
        metrics: of both.

    Raises:
        OSError: they cannot be written.
    """
    try:
        _write_results(trainer, metrics)
    except Exception as error:
        if (reason := write_failure(error)) is None:
            raise
        raise OSError(
            f"the results cannot be written to `output_dir` {trainer.args.output_dir}: {reason}. Make room there, then "
            "start again with `resume_from_checkpoint` set to true."
        ) from error


def _write_results(trainer: SFTTrainer, metrics: dict[str, float]) -> None:
    trainer.save_model()
    if not trainer.is_world_process_zero():
        return
    from paddlemix.visualization.loss_curve import plot_loss

    folder = Path(trainer.args.output_dir)
    write_json(folder / "all_results.json", metrics)
    write_json(folder / "trainer_log.json", trainer.log_history)
    if any("loss" in entry for entry in trainer.log_history):
        plot_loss(trainer.log_history, folder / "loss.png")


def _load_mix(items: list[DatasetItem], processor: Any, data: DataArguments, **mixing: Any) -> MixDataset:
    return MixDataset.load(
        [DatasetSpec(**asdict(item)) for item in items],
        processor,
        data.on_bad_record,
        skip_overlong=data.on_overlong == "skip",
        **mixing,
    )


def weights_dtype(args: TrainingArguments) -> str:
    """O1 keeps float32 weights and computes in half precision where that is safe; O2 holds the weights in it too."""
    if args.fp16_opt_level == "O2" and args.bf16:
        return "bfloat16"
    return "float16" if args.fp16_opt_level == "O2" and args.fp16 else "float32"


def _knows_turns(model: Any, name_or_path: str) -> bool:
    return model.knows_turns(AutoTokenizerMIX.from_pretrained(name_or_path).token_id(END_OF_TURN))


def _switched_globs(model: ModelArguments, family: Family) -> list[str]:
    switches = (
        (model.freeze_vit, family.vision_globs),
        (model.freeze_aligner, family.aligner_globs),
        (model.freeze_llm, family.language_globs),
    )
    return [glob for is_on, globs in switches if is_on for glob in globs]
