"""A fine-tuning run, from a checked config to a saved model."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from paddlemix.checkpoints.store import CheckpointStore
from paddlemix.checkpoints.write_failure import write_failure
from paddlemix.configuration.arguments import DatasetItem, FinetuneConfig, ModelArguments
from paddlemix.configuration.rules import evaluates, recomputes
from paddlemix.contract import Model, Processor, Tokenizer
from paddlemix.datasets.bad_records import FILE as BAD_RECORDS_FILE
from paddlemix.datasets.bad_records import BadRecords
from paddlemix.datasets.batching import Batching
from paddlemix.datasets.loading.drawn import DrawnRecords
from paddlemix.datasets.loading.load import Start
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.distributed.ranks import from_first
from paddlemix.files import write_json
from paddlemix.hub import local_folder
from paddlemix.media.kept import begin_refetch
from paddlemix.models.registry import Family, find_family
from paddlemix.names import END_OF_TURN
from paddlemix.ops import set_compute_dtype
from paddlemix.peft.folders import is_adapter
from paddlemix.training.freezing import any_matches, freeze

if TYPE_CHECKING:
    from paddlenlp.trainer import TrainingArguments

    from paddlemix.models.base import MixPretrainedModel
    from paddlemix.peft.lora_model import MixLoRAModel
    from paddlemix.training.answer_evaluation import AnswerEvaluation
    from paddlemix.training.callbacks.early_stopping import EarlyStopping
    from paddlemix.training.run_trainer import RunTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run, and what all of its steps start from; each part is read once.

    Attributes:
        config: checked.
        folder: where the checkpoint that it begins with is.
        family: of that checkpoint.
        processor: the checkpoint's, with the config's bounds.
    """

    config: FinetuneConfig
    folder: Path
    family: Family
    processor: Processor

    @classmethod
    def of(cls, config: FinetuneConfig) -> Run:
        """Find the checkpoint that a config names, and read its processor.

        Args:
            config: checked.

        Returns:
            The run, whose records and model are not loaded yet.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of its tokenizer is missing.
            ValueError: config.json names no known model, or the checkpoint is an adapter.
        """
        folder, data = local_folder(config.model.model_name_or_path), config.data
        if is_adapter(folder):
            raise ValueError(
                f"`model_name_or_path` {config.model.model_name_or_path} is an adapter; merge it into its base first "
                "with paddlemix/tools/merge_lora_params.py, or name the base."
            )
        if data.refetch:
            begin_refetch(float(from_first(lambda: repr(time.time()))))
        family = find_family(folder)
        processor = family.processor_class.from_pretrained(
            folder,
            **data.media_settings,
            grounding=data.grounding,
            allow_control_tokens=data.allow_control_tokens,
            max_length=data.max_length,
            truncate_text=data.on_overlong == "truncate_text",
        )
        return cls(config, folder, family, processor)

    def load_datasets(self) -> tuple[MixDataset | None, MixDataset | None]:
        """Load the sets to train on and to evaluate on, and check every record; None where the run needs none.

        Returns:
            The mixture for training and that for evaluation.

        Raises:
            FileNotFoundError: a record file is missing.
            ValueError: records are bad and `on_bad_record` is "raise".
        """
        data, training = self.config.data, self.config.training
        # What one rank has looked at the others take as it found it, so that all draw from the same records.
        start = Start(data.check_media, token=from_first(lambda: uuid4().hex))
        mixing = {"strategy": data.mix_strategy, "seed": training["seed"], "shuffle": data.shuffle}
        drawn = replace(start, drawn=self._drawn_before())
        train = self._load_mix(data.dataset.train, start=drawn, **mixing) if training["do_train"] else None
        evaluation = self._load_mix(data.dataset.eval, start=start) if evaluates(training) else None
        return train, evaluation

    def _drawn_before(self) -> DrawnRecords | None:
        """Find what the run draws that is to go on, where records that became bad since are to be replaced."""
        resumed = self.config.training["resume_from_checkpoint"]
        if not resumed or self.config.data.on_bad_record == "raise":
            return None
        if isinstance(resumed, str):
            return DrawnRecords.read(Path(resumed).expanduser())
        checkpoints = CheckpointStore(Path(self.config.training["output_dir"]).expanduser()).checkpoints()
        return DrawnRecords.read(checkpoints[-1]) if checkpoints else None

    @property
    def bad_records(self) -> BadRecords | None:
        """What names the records that turn out to be bad; None where the first of them ends the run."""
        if self.config.data.on_bad_record == "raise":
            return None
        return BadRecords(Path(self.config.training["output_dir"]).expanduser() / BAD_RECORDS_FILE)

    def load_model(self, args: TrainingArguments) -> MixPretrainedModel | MixLoRAModel:
        """Load the model, freeze it or put adapters on it where the config says so, and say how this process computes.

        Args:
            args: say the precision, and the seed of adapters.

        Returns:
            The model.

        Raises:
            OSError: the checkpoint cannot be fetched, or a file of it is missing.
            ValueError: config and weights do not fit, a pattern of what to train matches nothing, or so many ranks
                cannot share the model.
        """
        keys = self.config.model
        if not set_compute_dtype(keys.cpu_compute_dtype):
            logger.warning(
                "`cpu_compute_dtype` is bfloat16, but float32 is what can be had here; `python -m paddlemix.ops` tells "
                "why."
            )
        loaded = self.family.model_class.from_pretrained(
            keys.model_name_or_path,
            dtype=keys.dtype or weights_dtype(args),
            tensor_parallel_degree=max(args.tensor_parallel_degree, 1),
        )
        tokenizer = self.processor.tokenizer
        end = tokenizer.token_id(END_OF_TURN)
        is_base = not loaded.knows_turns(end)
        loaded.begin_tuning_on_turns(end, (tokenizer.eos_token_id, tokenizer.pad_token_id))
        if is_base:
            _end_answers_with_turns(tokenizer, end)
        return choose_trained(loaded, self.family, keys, is_base=is_base, seed=args.seed)

    def set_recompute(self, model: Model) -> None:
        """Let the parts of a model that the config names compute their activations twice and not keep them.

        Args:
            model: of `load_model`.
        """
        training = self.config.training
        model.set_recompute(vision=recomputes(training, "vit"), language=recomputes(training, "llm"))

    def set_learning_rates(self, model: Model) -> dict[str, float]:
        """Give the vision tower and the aligner the learning rates that the config has for them.

        Args:
            model: of `load_model`.

        Returns:
            By each key that is set its rate as a multiple of `learning_rate`.

        Raises:
            ValueError: a key is set, but nothing of its part is trained.
        """
        from paddlemix.training.rates import set_module_rates  # takes a second, so only once it is needed

        return set_module_rates(model, self.family, self.config.training)

    @property
    def sampling(self) -> Batching:
        """How the config wants batches to be drawn."""
        data = self.config.data
        return Batching(
            pack_tokens=data.max_length if data.mixtoken else None,
            window=data.mixtoken_window,
            group_by_length=data.group_by_length,
            loss_per=data.loss_per,
        )

    def early_stopping(self) -> EarlyStopping | None:
        """Return what stops training before its end; None where the config wants none."""
        from paddlemix.training.callbacks.early_stopping import EarlyStopping

        training = self.config.training
        patience = training["early_stopping_patience"]
        return EarlyStopping(patience, training["early_stopping_threshold"]) if patience else None

    def answer_evaluation(self, evaluation: MixDataset | None, *, ranks: int) -> AnswerEvaluation | None:
        """Return how the model's answers are evaluated; None where the config does not want it.

        Args:
            evaluation: the sets to answer.
            ranks: how many processes share them.

        Returns:
            The evaluation.
        """
        training = self.config.training
        if evaluation is None or not training["predict_with_generate"]:
            return None
        from paddlemix.training.answer_evaluation import AnswerEvaluation

        rows, batches = training["per_device_eval_batch_size"], training["max_evaluate_steps"]
        return AnswerEvaluation(
            evaluation,
            self.processor,
            max_new_tokens=training["max_new_tokens"],
            batch_size=rows,
            bad_records=self.bad_records,
            limit=batches * rows * ranks if batches > 0 else None,
        )

    def _load_mix(self, items: list[DatasetItem], **mixing: Any) -> MixDataset:
        data = self.config.data
        return MixDataset.load(
            [DatasetSpec(**asdict(item)) for item in items],
            self.processor,
            data.on_bad_record,
            skip_overlong=data.on_overlong == "skip",
            **mixing,
        )


def choose_trained(
    loaded: MixPretrainedModel, family: Family, keys: ModelArguments, *, is_base: bool, seed: int
) -> MixPretrainedModel | MixLoRAModel:
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
    model: MixPretrainedModel | MixLoRAModel = loaded
    if keys.lora:
        from paddlemix.training.lora import add_adapters  # takes a second, so only once it is needed

        model = add_adapters(loaded, family, keys, is_base=is_base, seed=seed)
    # A model whose head is its embedding has no parameters of that name.
    switched = [glob for glob in _switched_globs(keys, family) if any_matches(model, glob)]
    freeze(model, [*(keys.freeze_include or []), *switched], keys.freeze_exclude)
    return model


def prepare_resume(args: TrainingArguments) -> str | None:
    """Delete what a killed run has left half written, and choose the checkpoint to go on from.

    Args:
        args: of the run; made, so that ranks can talk to one another.

    Returns:
        The checkpoint's folder, the same in all ranks; None where training begins at its start.

    Raises:
        ValueError: there are checkpoints, but no run can go on from any of them.
    """
    from paddlemix.checkpoints.store import choose_checkpoint

    def decide() -> str:
        store = CheckpointStore(args.output_dir)
        store.clear_leftovers()
        return str(choose_checkpoint(store, args.resume_from_checkpoint) or "")

    return from_first(decide) or None


def save_results(trainer: RunTrainer, metrics: dict[str, float]) -> None:
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


def _write_results(trainer: RunTrainer, metrics: dict[str, float]) -> None:
    trainer.save_model()
    if not trainer.is_world_process_zero():
        return
    from paddlemix.visualization.loss_curve import plot_loss

    folder = Path(trainer.args.output_dir)
    write_json(folder / "all_results.json", metrics)
    write_json(folder / "trainer_log.json", trainer.log_history)
    if any("loss" in entry for entry in trainer.log_history):
        plot_loss(trainer.log_history, folder / "loss.png")


def _end_answers_with_turns(tokenizer: Tokenizer, end_of_turn: int) -> None:
    """Let tokenizer_config.json name a turn's end, for tools that ask nothing else what ends an answer."""
    if tokenizer.eos_token_id != end_of_turn:  # a Qwen-VL's is without being named
        tokenizer.settings["eos_token"], tokenizer.eos_token_id = END_OF_TURN, end_of_turn


def weights_dtype(args: TrainingArguments) -> str:
    """Return what weights are held in.

    O1 keeps float32 weights and computes in half precision where that is safe; O2 holds the weights in it too.
    """
    if args.fp16_opt_level == "O2" and args.bf16:
        return "bfloat16"
    return "float16" if args.fp16_opt_level == "O2" and args.fp16 else "float32"


def _switched_globs(model: ModelArguments, family: Family) -> list[str]:
    switches = (
        (model.freeze_vit, family.vision_globs),
        (model.freeze_aligner, family.aligner_globs),
        (model.freeze_llm, family.language_globs),
    )
    return [glob for is_on, globs in switches if is_on for glob in globs]
