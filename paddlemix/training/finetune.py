"""A fine-tuning run, from a checked config to a saved model."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from paddlemix.checkpoints.store import CheckpointStore
from paddlemix.checkpoints.write_failure import write_failure
from paddlemix.configuration.arguments import DatasetItem, FinetuneConfig, ModelArguments
from paddlemix.configuration.output_dir import merged_base_folder
from paddlemix.configuration.rules import evaluates, recomputes, weights_dtype
from paddlemix.contract import Model, Processor, Tokenizer
from paddlemix.datasets.bad_records import FILE as BAD_RECORDS_FILE
from paddlemix.datasets.bad_records import BadRecords
from paddlemix.datasets.batching import Batching
from paddlemix.datasets.loading.checking import Start
from paddlemix.datasets.loading.drawn import DrawnRecords
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.distributed.ranks import from_first
from paddlemix.files import write_json
from paddlemix.media.kept import begin_refetch
from paddlemix.models.config_file import make_config, read_config, vocab_size_of
from paddlemix.models.quantized import Quantizing
from paddlemix.models.registry import Family, find_family
from paddlemix.peft.chain import AdapterChain, find_chain
from paddlemix.peft.folders import lasting_name
from paddlemix.processors.tokens.rows import check_rows
from paddlemix.training.adapters.keys import check_numbers
from paddlemix.training.freezing import any_matches, freeze
from paddlemix.training.new_tokens import Growth
from paddlemix.weights.files import require_weights

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
        chain: the model that it begins with, and the adapters on it.
        family: of that model.
        processor: the model's, or the last adapter's, with the config's bounds and new tokens.
        growth: what the model needs for those.
    """

    config: FinetuneConfig
    chain: AdapterChain
    family: Family
    processor: Processor
    growth: Growth

    @classmethod
    def of(cls, config: FinetuneConfig) -> Run:
        """Find the checkpoint that a config names, and read its processor.

        Args:
            config: checked.

        Returns:
            The run, whose records and model are not loaded yet.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of its tokenizer is missing.
            ValueError: config.json names no known model, what should be a model is an adapter, or the other way round,
                or the vocabulary cannot get the config's new tokens.
        """
        keys, data = config.model, config.data
        chain = find_chain(keys.model_name_or_path, keys.lora_paths, creates_new=keys.create_new_adapter)
        if chain.adapters and not keys.lora:
            raise ValueError(
                f"`model_name_or_path` {keys.model_name_or_path} is an adapter. Set `lora` to true to train it "
                "further; or merge it into its base with paddlemix/tools/merge_lora_params.py, and give the merged "
                "model."
            )
        if chain.continued is not None:
            check_numbers(keys, config.places, chain.continued)
        if chain.merged and chain.base == str(merged_base_folder(config)):
            raise ValueError(
                f"`output_dir` {config.training['output_dir']} holds the model that the adapters are on, {chain.base}, "
                "and this run would write another there. Choose another `output_dir`."
            )
        folders = chain.folders()
        if data.refetch:
            begin_refetch(float(from_first(lambda: repr(time.time()))))
        family = find_family(folders.model)
        processor = family.processor_class.from_pretrained(
            folders.model, lora_path=folders.adapter, **data.processor_settings
        )
        growth = _growth(keys, processor, chain, folders.model, family)
        if keys.new_tokens:
            processor.choose_added_tokens(data.added_tokens)  # the chat template may write some of them
        return cls(config, chain, family, processor, growth)

    def check_tokens(self) -> None:
        """Make sure that the model will have a row for every token.

        Raises:
            ValueError: the checkpoint's tokenizer has more tokens.
        """
        check_rows(self.processor.tokenizer, self.growth.rows, self.chain.base)

    def load_datasets(self) -> tuple[MixDataset | None, MixDataset | None]:
        """Load the sets to train on and to evaluate on, and check every record; None where the run needs none.

        Returns:
            The mixture for training and that for evaluation.

        Raises:
            FileNotFoundError: a record file is missing, or the model's folder has no weights.
            ValueError: records are bad and `on_bad_record` is "raise".
        """
        data, training = self.config.data, self.config.training
        if Path(self.chain.base).is_dir():
            require_weights(Path(self.chain.base))  # a folder's are missed now, not after its records were read
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

    def load_start(self, dtype: str, *, seed: int, tensor_parallel_degree: int = 1) -> MixPretrainedModel:
        """Load the model that training begins with, but for the adapter that is trained further.

        Args:
            dtype: "float32", "bfloat16" or "float16".
            seed: of rows of new tokens that begin random.
            tensor_parallel_degree: how many ranks share it.

        Returns:
            The model; adapters below the last are a part of it, and it has rows for all tokens.

        Raises:
            OSError: a checkpoint cannot be fetched, or a file of it is missing.
            ValueError: config and weights do not fit, so many ranks cannot share the model, or it has no rows for some
                of the tokens.
        """
        self.check_tokens()
        keys = self.config.model
        loaded = self.family.model_class.from_pretrained(
            self.chain.base,
            dtype=dtype,
            tensor_parallel_degree=tensor_parallel_degree,
            quantizing=Quantizing(keys.quantize, keys.quantize_vision) if keys.quantize else None,
        )
        if loaded.is_quantized and not keys.lora and self.config.training["do_train"]:
            raise quantized_without_adapters(self.chain.base)
        if self.chain.merged:
            # Takes a second, so only once it is needed.
            from paddlemix.training.adapters.merged_base import merge_adapters

            loaded = merge_adapters(loaded, self.chain.merged)
        return self.growth.apply(loaded, seed=seed)

    def load_model(self, args: TrainingArguments) -> MixPretrainedModel | MixLoRAModel:
        """Load the model, and freeze it or put adapters on it where the config says so.

        Args:
            args: say the precision, and the seed of adapters.

        Returns:
            The model.

        Raises:
            OSError: the checkpoint cannot be fetched, or a file of it is missing.
            ValueError: config and weights do not fit, a pattern of what to train matches nothing, so many ranks cannot
                share the model, or it has no rows for some of the tokens.
        """
        keys = self.config.model
        degree = max(args.tensor_parallel_degree, 1)
        switches = {name: getattr(args, name) for name in ("fp16_opt_level", "bf16", "fp16")}
        dtype = weights_dtype({**switches, "dtype": keys.dtype})
        loaded = self.load_start(dtype, seed=args.seed, tensor_parallel_degree=degree)
        tokenizer = self.processor.tokenizer
        end_of_turn = self.processor.end_of_turn
        end = tokenizer.token_id(end_of_turn)
        is_base = not loaded.knows_turns(end)
        base = str(merged_base_folder(self.config)) if self.chain.merged else self.chain.base
        start = AdapterStart(base, self.chain.continued, tuple(self.config.places))
        model = choose_trained(loaded, self.family, keys, is_base=is_base, seed=args.seed, start=start)
        model.begin_tuning_on_turns(end, (tokenizer.eos_token_id, tokenizer.pad_token_id))
        if is_base:
            _end_answers_with(tokenizer, end_of_turn)
        self.growth.warn_of_frozen_rows(model)
        return model

    def write_merged_base(self, model: MixPretrainedModel | MixLoRAModel) -> None:
        """Write the model that earlier adapters have become a part of, where there are any.

        Args:
            model: of `load_model`, not trained yet.

        Raises:
            OSError: it cannot be written.
        """
        if self.chain.merged and self.config.training["do_train"]:
            # Takes a second, so only once it is needed.
            from paddlemix.training.adapters.merged_base import write_merged_base

            write_merged_base(self.config, cast("MixLoRAModel", model), self.processor)

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


def quantized_without_adapters(base: str) -> ValueError:
    """Make the error of a run that would train quantised weights themselves; `base` names the model."""
    return ValueError(
        f"the weights of {base} are quantised, and such are not trained. Set `lora` to true, which trains adapters on "
        "them."
    )


@dataclass(frozen=True)
class AdapterStart:
    """What adapters begin with.

    Attributes:
        base: the name or path of the model that they are on, which they say when they are saved.
        adapter: the folder of the one that is trained further; None begins new ones.
        given: the keys that the config gives.
    """

    base: str
    adapter: Path | None = None
    given: tuple[str, ...] = ()


def choose_trained(
    loaded: MixPretrainedModel,
    family: Family,
    keys: ModelArguments,
    *,
    is_base: bool,
    seed: int,
    start: AdapterStart | None = None,
) -> MixPretrainedModel | MixLoRAModel:
    """Freeze a model, or put adapters on it, as the config says.

    Args:
        loaded: as its checkpoint has it.
        family: the model's.
        keys: say what to train.
        is_base: whether the model has never seen the tokens of turns.
        seed: of adapters.
        start: what adapters begin with; None begins new ones on the model that the config names.

    Returns:
        The model, or one with adapters around it.

    Raises:
        ValueError: a pattern of what to train matches nothing.
    """
    model: MixPretrainedModel | MixLoRAModel = loaded
    if keys.lora:
        from paddlemix.training.adapters.lora import (  # takes a second, so only once it is needed
            add_adapters,
            continue_adapter,
        )

        start = start or AdapterStart(lasting_name(keys.model_name_or_path))
        if start.adapter is None:
            model = add_adapters(loaded, family, keys, base=start.base, is_base=is_base, seed=seed)
        else:
            model = continue_adapter(loaded, family, keys, start.adapter, base=start.base, given=start.given)
    # A model whose head is its embedding has no parameters of that name.
    switched = [glob for glob in _switched_globs(keys, family) if any_matches(model, glob)]
    freeze(model, [*(keys.freeze_include or []), *switched], keys.freeze_exclude)
    return model


def prepare_resume(args: TrainingArguments) -> str | None:
    """Choose the checkpoint to go on from.

    Args:
        args: of the run; made, so that ranks can talk to one another.

    Returns:
        The checkpoint's folder, the same in all ranks; None where training begins at its start.

    Raises:
        ValueError: there are checkpoints, but no run can go on from any of them.
    """
    from paddlemix.checkpoints.store import choose_checkpoint

    def decide() -> str:
        return str(choose_checkpoint(CheckpointStore(args.output_dir), args.resume_from_checkpoint) or "")

    return from_first(decide) or None


def save_results(trainer: RunTrainer, metrics: dict[str, float]) -> None:
    """Write the metrics into `output_dir`, and of a run that has trained the model, its processor, and the loss.

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
    if trainer.args.do_train:  # what was evaluated alone lies where it was read from
        trainer.save_model()
    if not trainer.is_world_process_zero():
        return
    from paddlemix.training.callbacks.finite_log import with_nulls
    from paddlemix.visualization.loss_curve import plot_loss

    folder = Path(trainer.args.output_dir)
    write_json(folder / "all_results.json", with_nulls(metrics))
    if not trainer.args.do_train:
        return
    write_json(folder / "trainer_log.json", trainer.log_history)
    if any("loss" in entry for entry in trainer.log_history):
        plot_loss(trainer.log_history, folder / "loss.png")


def _end_answers_with(tokenizer: Tokenizer, end_of_turn: str) -> None:
    """Let tokenizer_config.json name a turn's end, for tools that ask nothing else what ends an answer."""
    token_id = tokenizer.token_id(end_of_turn)
    if tokenizer.eos_token_id != token_id:  # a Qwen-VL's is without being named
        tokenizer.settings["eos_token"], tokenizer.eos_token_id = end_of_turn, token_id


def _growth(keys: ModelArguments, processor: Processor, chain: AdapterChain, model: Path, family: Family) -> Growth:
    """Add the config's new tokens to the processor's, and find out what the model needs for them."""
    rows = max([_rows(model, family), *(_adapter_rows(one, model, family) for one in chain.adapters)])
    growth = Growth.of(keys, processor.tokenizer, rows)
    if chain.continued is not None and growth.pieces:
        raise ValueError(
            f"`new_tokens` lists tokens that {chain.continued} has no rows for, and it goes on in the shape that it "
            "has. Set `create_new_adapter` to true to begin an adapter with them on top of this one."
        )
    return growth


def _rows(folder: Path, family: Family) -> int:
    """Tell how many rows a checkpoint's embedding has; the family's classes take seconds to import."""
    values = read_config(folder)
    return vocab_size_of(values) or make_config(family.config_class, folder, values).vocab_size


def _adapter_rows(adapter: Path, model: Path, family: Family) -> int:
    """Tell how many rows an adapter's embedding has; 0 where it holds none."""
    from paddlemix.peft.adapter import read_adapter  # takes seconds, so only where there is one
    from paddlemix.peft.merging.tying import Tying

    config: Any = make_config(family.config_class, model, read_config(model))
    layout = family.model_class.weight_layout(config)
    return Tying.of(read_adapter(adapter, layout), layout, config.decoder_shape.names.embedding).rows or 0


def _switched_globs(model: ModelArguments, family: Family) -> list[str]:
    switches = (
        (model.freeze_vit, family.vision_globs),
        (model.freeze_aligner, family.aligner_globs),
        (model.freeze_llm, family.language_globs),
    )
    return [glob for is_on, globs in switches if is_on for glob in globs]
