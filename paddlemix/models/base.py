"""What every model of the zoo has in common: PaddleNLP's PretrainedModel, with the published files as its format."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn
from paddlenlp.transformers import PretrainedModel
from paddlenlp.transformers.model_outputs import ModelOutput

from paddlemix.contract import LayerCache
from paddlemix.files import read_bounded, replacing, write_json
from paddlemix.generation.ends import carried_values, end_ids, named_ends, values_with_end
from paddlemix.hub import local_folder
from paddlemix.models.config_file import make_config, read_config
from paddlemix.models.quantized import Quantizing, load_quantized, put_plain_layers, quantized_layers
from paddlemix.models.tensor_parallel import SplitPlan, split_model, tensor_parallel_group
from paddlemix.names import CONFIG_FILE, GENERATION_FILE
from paddlemix.quantization.scheme import read_scheme
from paddlemix.weights.dtypes import PARAMETER_DTYPES
from paddlemix.weights.files import stored_tensors
from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.loading import load_weights, without_initial_values
from paddlemix.weights.saving import lend_weights, save_weights

if TYPE_CHECKING:
    from paddlemix.contract import ModelConfig
    from paddlemix.generation import GenerationConfig

# What a checkpoint says beside its model and processor; a model made from it says the same.
CARRIED_FILES = (GENERATION_FILE,)


@dataclass
class MixModelOutput(ModelOutput):
    """What a forward pass gives.

    Attributes:
        loss: float32[], when labels were given.
        logits: float[B, L, V]; None in training, where only the target tokens' logits are computed.
        past_key_values: the cache that was passed in, filled further.
    """

    loss: paddle.Tensor | None = None
    logits: paddle.Tensor | None = None
    past_key_values: list[LayerCache] | None = None

    def next_inputs(self) -> dict[str, paddle.Tensor]:
        """Return what the model wants back with the next tokens of an answer, by the name of its input."""
        return {}


class MixPretrainedModel(PretrainedModel):
    """A model that loads and saves published checkpoints as they are.

    A family sets `config_class`, `weight_layout(config)` and `split_plan(config)`; its config has `to_published()`.

    Args:
        config: of the family's `config_class`.

    Attributes:
        carried_files: what the `CARRIED_FILES` of the checkpoint held, by name; saved again as they were, but for what
            `begin_tuning_on_turns` changes.
        is_quantized: whether layers hold their weights as codes.
        quantized_as: who quantised the weights of the files, or how they were rounded; "" for neither.
    """

    carried_files: dict[str, bytes]
    is_quantized: bool
    quantized_as: str

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.carried_files = {}
        self.is_quantized = False
        self.quantized_as = ""

    @property
    def input_names(self) -> Collection[str]:
        """The names that `forward` takes."""
        raise NotImplementedError

    def can_generate(self) -> bool:
        """Return False, which keeps PaddleNLP's own generation settings away; `generate` here does without them."""
        return False

    def generate(
        self, input_ids: paddle.Tensor, generation_config: GenerationConfig | None = None, **inputs_and_settings: Any
    ) -> paddle.Tensor:
        """Continue prompts as `model.generate` of the field does: see `paddlemix.generation.ids.generate_ids`.

        Args:
            input_ids: int64[B, L], padding on the left.
            generation_config: how answers are written; None for the checkpoint's generation_config.json.
            **inputs_and_settings: the processor's other inputs, settings such as `max_new_tokens`, `do_sample`, a
                `streamer`, and the `tokenizer` that `stop_strings` need.

        Returns:
            int64[B, L + new], prompts and answers.

        Raises:
            TypeError: a name is neither an input of the model nor a setting.
            ValueError: a setting makes no sense, or a row is padded on the right.
        """
        from paddlemix.generation.ids import generate_ids  # here: a model that is trained only has no use for it

        return generate_ids(self, input_ids, generation_config, **inputs_and_settings)

    def knows_turns(self, end_of_turn: int) -> bool:
        """Tell whether the checkpoint was trained on conversations; a base model's answers end with other tokens.

        Args:
            end_of_turn: the token with which a turn ends.

        Returns:
            False where the checkpoint's generation_config.json, or else its config.json, says what ends an answer, and
            it is something else.
        """
        ends = named_ends(self)
        return not ends or end_of_turn in ends

    def begin_tuning_on_turns(self, end_of_turn: int, other_ends: Collection[int]) -> None:
        """Let `carried_files` say that a turn's end ends answers, before fine-tuning on conversations.

        Args:
            end_of_turn: the token with which a turn ends.
            other_ends: the tokenizer's own, for a checkpoint whose generation_config.json names none.
        """
        if end_of_turn not in end_ids(carried_values(self).get("eos_token_id")):
            self.carry_generation_values(values_with_end(self, end_of_turn, other_ends))

    def carry_generation_values(self, values: dict[str, Any]) -> None:
        """Let the generation_config.json that is saved with the model hold other values."""
        self.carried_files[GENERATION_FILE] = f"{json.dumps(values, ensure_ascii=False, indent=2)}\n".encode()

    def set_recompute(self, *, vision: bool, language: bool) -> None:
        """Choose which parts' blocks compute their activations twice in training and do not keep them.

        Args:
            vision: the tower's.
            language: the decoder's.
        """
        raise NotImplementedError

    @staticmethod
    def weight_layout(config: Any) -> WeightLayout:
        """Return how the family's parameters lie on disk."""
        raise NotImplementedError

    @staticmethod
    def split_plan(config: Any) -> SplitPlan:
        """Return how the family's layers are split over ranks that compute each of them together."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        dtype: str = "float32",
        *,
        tensor_parallel_degree: int = 1,
        quantizing: Quantizing | None = None,
    ) -> MixPretrainedModel:
        """Build the model that a checkpoint's config.json describes and fill it.

        Args:
            name_or_path: a local folder with config.json and weights, or a model `owner/name` of the hub.
            dtype: "float32", "bfloat16" or "float16", into which the stored weights are converted.
            tensor_parallel_degree: how many ranks share each layer, as Paddle's fleet has grouped them; this rank reads
                and holds its part.
            quantizing: how linear layers are quantised while they are read; None leaves them as the files have them,
                which may be quantised too.

        Returns:
            The model, in evaluation mode.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of it is missing.
            ValueError: config and weights do not fit, a file is damaged, the weights are quantised in a way that is
                not read, `dtype` is none of the three, or so many ranks cannot share the model.
        """
        if dtype not in PARAMETER_DTYPES:
            raise ValueError(f"`dtype` is {dtype!r}; expected one of {', '.join(PARAMETER_DTYPES)}.")
        folder = local_folder(name_or_path, weights=True)
        values = read_config(folder)
        config = make_config(cls.config_class, folder, values)
        scheme = read_scheme(values, folder)
        is_quantized = scheme is not None or quantizing is not None
        if is_quantized and tensor_parallel_degree > 1:
            raise ValueError(
                f"{folder}: `tensor_parallel_degree` is {tensor_parallel_degree}, but quantised layers are not split "
                "over ranks. Set it to 1; ranks may share the data, and `sharding` what is trained."
            )
        _check_layers(config, folder)
        with without_initial_values():
            model = cls.from_config(config, dtype=dtype)
            if tensor_parallel_degree > 1:
                config.tensor_parallel_degree = tensor_parallel_degree
                split_model(model, cls.split_plan(config), tensor_parallel_group(tensor_parallel_degree))
        if is_quantized:
            load_quantized(model, folder, cls.weight_layout(config), scheme, quantizing)
            model.is_quantized = bool(quantized_layers(model))
            model.quantized_as = scheme.method if scheme is not None else quantizing.kind if quantizing else ""
        else:
            load_weights(model, folder, cls.weight_layout(config))
        model.carried_files = read_carried_files(folder)
        model.eval()
        return model

    def save_pretrained(
        self,
        save_dir: str | os.PathLike[str],
        *,
        is_main_process: bool = True,
        dtype: str | None = None,
        **trainer_options: Any,
    ) -> None:
        """Write config.json and safetensors files that load here and in transformers.

        All ranks that share the model must call it; the files hold it whole.

        Args:
            save_dir: made where it is missing.
            is_main_process: whether this rank writes.
            dtype: what to store; None stores each parameter's own.
            **trainer_options: what PaddleNLP's Trainer hands over for its own formats, which are not written.

        Raises:
            ValueError: layers hold their weights as codes.
        """
        del trainer_options
        if self.is_quantized:
            raise ValueError(
                "the model's weights are held as codes, which no files are written of. Call its `dequantize` first."
            )
        if not is_main_process:
            lend_weights(self)
            return
        folder = Path(save_dir)
        folder.mkdir(parents=True, exist_ok=True)
        stored = dtype or str(next(iter(self.parameters())).dtype).removeprefix("paddle.")
        write_json(folder / CONFIG_FILE, {**self.config.to_published(), "torch_dtype": stored})
        save_weights(self, folder, self.weight_layout(self.config), dtype=dtype)
        for name, content in self.carried_files.items():
            with replacing(folder / name) as staged:
                staged.write_bytes(content)

    def dequantize(self) -> None:
        """Hold weights that were held as codes as plain numbers, of the other parameters' dtype."""
        put_plain_layers(self)
        self.is_quantized = False

    def _init_weights(self, layer: nn.Layer) -> None:
        if isinstance(layer, (nn.Linear, nn.Embedding)):
            normal = nn.initializer.Normal(std=self.config.initializer_range)
            normal(layer.weight)


def _check_layers(config: Any, folder: Path) -> None:
    """Refuse a model of more layers than its files have tensors, before time is spent to build and compare them."""
    layers, tensors = config.decoder_shape.layers + config.tower_shape.blocks, len(stored_tensors(folder))
    if layers > tensors:
        raise ValueError(
            f"{folder / CONFIG_FILE}: asks for {layers} layers, but the weights beside it are {tensors} tensors; take "
            "both from one checkpoint."
        )


def read_carried_files(folder: Path) -> dict[str, bytes]:
    """Read what `folder` holds of the `CARRIED_FILES`, by name."""
    present = (folder / name for name in CARRIED_FILES if (folder / name).is_file())
    return {file.name: read_bounded(file) for file in present}
