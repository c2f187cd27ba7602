"""A model with adapters: PaddleNLP's LoRAModel on our layers, with PEFT's layout as its format."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import paddle
from paddle import nn
from paddlenlp.peft.lora import LoRAConfig, LoRAModel

from paddlemix.files import read_bounded, replacing
from paddlemix.models.base import CARRIED_FILES, MixPretrainedModel
from paddlemix.models.layers.linear import Linear
from paddlemix.models.replace import put_layer, replace_layer
from paddlemix.models.vocabulary import with_rows
from paddlemix.peft import adapter_names as names
from paddlemix.peft.adapter import Adapter, read_adapter, trained_tensors, write_adapter
from paddlemix.peft.adapter_config import AdapterConfig, Product
from paddlemix.peft.layers import DoRALinear, LoRALinear
from paddlemix.peft.merging.trained_on import TrainedOn, check_base
from paddlemix.peft.patterns import with_patterns
from paddlemix.peft.targets import HEAD, HEAD_WEIGHT, linear_layers, shortest_endings
from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.loading import fill, misfit
from paddlemix.weights.stored_tensor import same_numbers

# What PaddleNLP calls which biases are trained.
_TRAINABLE_BIAS = {"none": None, "all": "all", "lora_only": "lora"}


class MixLoRAModel(LoRAModel):
    """PaddleNLP's LoRAModel around a model of ours; what it does not have, the model inside is asked for.

    The adapters are trained and the layers that are saved whole, all else is frozen.

    Args:
        model: its layers are replaced in place.
        lora_config: its `target_modules` match linear layers, each by one pattern, and its `trainable_modules`
            parameters.
        adapter_config: what adapter_config.json says of it; its patterns are about layers as that file calls them.

    Attributes:
        restore_layer_map: which layers PaddleNLP puts back when the adapters are taken off.
        model: the model inside.
        lora_config: as it was given.
        adapter_config: as it was given.
    """

    restore_layer_map: ClassVar[dict[type[nn.Layer], type[nn.Layer]]] = {LoRALinear: Linear, DoRALinear: Linear}

    model: MixPretrainedModel
    lora_config: LoRAConfig
    adapter_config: AdapterConfig

    def __init__(self, model: MixPretrainedModel, lora_config: LoRAConfig, adapter_config: AdapterConfig) -> None:
        if adapter_config.dora and model.is_quantized:
            raise ValueError(
                "an adapter with magnitudes (`use_dora`) needs the numbers of its base's weights, which are held as "
                "codes here. Train without it, or on plain weights."
            )
        self._all_layers = [name for name, _ in model.named_sublayers()]
        self.adapter_config = adapter_config
        self._there = model.weight_layout(model.config).name_in_memory
        self._trained_on = TrainedOn.of_model(model)
        super().__init__(model, lora_config)

    @classmethod
    def adapting(
        cls,
        model: MixPretrainedModel,
        config: AdapterConfig,
        layers: Sequence[str],
        whole: Sequence[str] = (),
        *,
        lora_plus_scale: float = 1.0,
    ) -> MixLoRAModel:
        """Put new adapters on layers of a model.

        Args:
            model: its layers are replaced in place.
            config: ranks, scales, dropout, whether layers have magnitudes, and which biases are trained.
            layers: the names of linear layers.
            whole: the names of parameters that are trained themselves.
            lora_plus_scale: how many times the learning rate is for all of an adapter but the factor that starts as
                random.

        Returns:
            The model with adapters, which do not change what it computes yet.
        """
        there = model.weight_layout(model.config).name_in_memory
        # What is saved: no more than what the layers have.
        config = with_patterns(config, {there(layer): config.product_of(there(layer)) for layer in layers})
        config = replace(config, modules_to_save=(), ties_head=False, token_rows={})
        lora_config = LoRAConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            rslora=config.rslora,
            lora_plus_scale=lora_plus_scale,
            base_model_name_or_path=config.base,
            target_modules=[re.escape(name) for name in layers],
            trainable_modules=[re.escape(name) for name in whole],
            trainable_bias=_TRAINABLE_BIAS[config.bias],
            tensor_parallel_degree=model.config.tensor_parallel_degree,
            dtype=str(next(iter(model.parameters())).dtype).removeprefix("paddle."),
        )
        adapted = cls(model, lora_config, config)
        for name in adapted.trained_biases:
            bias = adapted._trained[name]
            bias.optimize_attr = {**bias.optimize_attr, "learning_rate": lora_plus_scale}
        return adapted

    @classmethod
    def from_pretrained(
        cls, model: MixPretrainedModel, lora_path: str | os.PathLike[str], **unused: Any
    ) -> MixLoRAModel:
        """Put the adapter in a folder on the model that it was trained on.

        Args:
            model: its layers are replaced in place; where the adapter has added tokens, those of a larger model are.
            lora_path: a local folder in PEFT's layout.
            **unused: of PaddleNLP's own formats, which are not read.

        Returns:
            The model with the adapter, in evaluation mode.

        Raises:
            FileNotFoundError: a file of the adapter is missing.
            ValueError: it is damaged, or was not trained on this model.
        """
        del unused
        adapter = read_adapter(Path(lora_path), model.weight_layout(model.config))
        return cls._with_adapter(model, adapter, adapter.config)

    @classmethod
    def continuing(
        cls,
        model: MixPretrainedModel,
        folder: Path,
        *,
        base: str,
        dropout: float | None = None,
        lora_plus_scale: float = 1.0,
    ) -> MixLoRAModel:
        """Put the adapter in a folder on a model, to train it further.

        Args:
            model: its layers are replaced in place; where the adapter has added tokens, those of a larger model are.
            folder: in PEFT's layout.
            base: the model's name or path, which the adapter says from now on.
            dropout: in front of the adapter; None keeps the one that it was trained with.
            lora_plus_scale: how many times the learning rate is for the factor that starts as zero.

        Returns:
            The model with the adapter.

        Raises:
            FileNotFoundError: a file of the adapter is missing.
            ValueError: it is damaged, or was not trained on this model.
        """
        adapter = read_adapter(folder, model.weight_layout(model.config))
        config = replace(adapter.config, base=base, dropout=adapter.config.dropout if dropout is None else dropout)
        return cls._with_adapter(model, adapter, config, lora_plus_scale)

    @classmethod
    def _with_adapter(
        cls, model: MixPretrainedModel, adapter: Adapter, config: AdapterConfig, lora_plus_scale: float = 1.0
    ) -> MixLoRAModel:
        check_base(adapter.folder, adapter.trained_on, TrainedOn.of_model(model), config.base or "the model")
        model = _with_rows(model, adapter)
        _check_layers(model, adapter)
        whole = _whole_parameters(model, adapter)
        there = model.weight_layout(model.config).name_in_memory
        # A product's rank is that in the file, whatever versions of PEFT understand by the patterns.
        config = with_patterns(config, {there(layer): product for layer, product in adapter.products.items()})
        adapted = cls.adapting(model, config, adapter.layers, whole, lora_plus_scale=lora_plus_scale)
        adapted._read(adapter)
        for name in CARRIED_FILES:
            if (adapter.folder / name).is_file():
                model.carried_files[name] = read_bounded(adapter.folder / name)
        adapted.eval()
        return adapted

    @property
    def adapted_layers(self) -> list[str]:
        """The names of the layers with an adapter, in the model's order."""
        return [name for name, layer in self.model.named_sublayers() if isinstance(layer, LoRALinear)]

    @property
    def products(self) -> dict[str, Product]:
        """What is on each layer with an adapter, by its name."""
        return {name: self.adapter_config.product_of(self._there(name)) for name in self.adapted_layers}

    @property
    def whole_parameters(self) -> list[str]:
        """The names of the parameters that are trained and saved themselves, but for biases that `bias` names."""
        patterns = self.lora_config.trainable_modules or ()
        return [name for name in self._trained if any(re.fullmatch(pattern, name) for pattern in patterns)]

    @property
    def whole_layers(self) -> list[str]:
        """The names of the layers that are trained and saved whole."""
        layers = {name.rpartition(".")[0] for name in self.whole_parameters}
        return [name for name in self._all_layers if name in layers]

    @property
    def trained_biases(self) -> list[str]:
        """The names of the biases that are trained because `bias` names them."""
        whole = set(self.whole_parameters)
        return [name for name in self._trained if not names.is_part(name) and name not in whole]

    @property
    def _trained(self) -> dict[str, paddle.Tensor]:
        return trained_tensors(self.model)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        merge_tensor_parallel: bool = False,
        *,
        is_main_process: bool = True,
        **trainer_options: Any,
    ) -> None:
        """Write the adapter as PEFT reads it, and the base's generation settings; each file is whole or not there.

        Args:
            save_directory: made where it is missing.
            merge_tensor_parallel: of PaddleNLP's own formats, which are not written.
            is_main_process: whether this rank writes.
            **trainer_options: more of those.
        """
        del merge_tensor_parallel, trainer_options
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_adapter(
            folder,
            trained_tensors(self.model),
            self._layout,
            ties_head_to=self._tied_parameter,
            trained_on=self._trained_on,
        )
        self.adapter_config.save(
            folder,
            self._endings(self.adapted_layers),
            [*self._endings(self.whole_layers), *self._tied_head],
        )
        for name, content in self.model.carried_files.items():
            with replacing(folder / name) as staged:
                staged.write_bytes(content)

    def save_base(self, folder: Path) -> None:
        """Write the model inside as a whole model without its adapters; what is trained whole is written as it is.

        Args:
            folder: must exist.
        """
        adapted = {name: layer for name, layer in self.model.named_sublayers() if isinstance(layer, LoRALinear)}
        try:
            for name in adapted:
                replace_layer(self.model, name, lambda layer: layer.base)
            self.model.save_pretrained(folder)
        finally:
            for name, layer in adapted.items():
                put_layer(self.model, name, layer)

    def take_off(self) -> MixPretrainedModel:
        """Make the adapters a part of the model inside; the object itself is of no use any more.

        Returns:
            That model, with layers as it had before, which computes what it computed with the adapters.
        """
        for name in self.adapted_layers:
            replace_layer(self.model, name, lambda layer: layer.take_off())
        return self.model

    def load_adapter(self, folder: Path) -> None:
        """Fill the adapters that are there from a folder.

        Args:
            folder: what `save_pretrained` wrote.

        Raises:
            FileNotFoundError: a file of the adapter is missing.
            ValueError: it is damaged, or another adapter than this.
        """
        adapter = read_adapter(folder, self._layout)
        trained = set(trained_tensors(self.model))
        stored = {name for name in adapter.tensors if name not in self._layout.optional}
        if trained != stored:
            problems = [f"{name}, which only one side has" for name in sorted(trained ^ stored)]
            raise adapter.refusal("the adapters that `lora_target_modules` asks for", problems)
        check_base(folder, adapter.trained_on, self._trained_on, self.adapter_config.base or "the model")
        self._read(adapter)

    def _find_and_replace_module(
        self, model: nn.Layer, module_name: str, lora_config: LoRAConfig, enable_lora: list[bool] | None
    ) -> None:
        del enable_lora
        product = self.adapter_config.product_of(self._there(module_name))
        kind = DoRALinear if self.adapter_config.dora else LoRALinear
        replace_layer(model, module_name, lambda layer: kind(layer, lora_config, product))

    def _read(self, adapter: Adapter) -> None:
        parameters = dict(self.model.named_parameters())
        wanted = {name: stored for name, stored in adapter.tensors.items() if name in parameters}
        problems = [text for name, one in wanted.items() for text in misfit(name, parameters[name], one, self._layout)]
        if problems:
            raise adapter.refusal("the model", problems)
        for name, stored in wanted.items():
            fill(parameters[name], stored, self._layout.reading(name, list(parameters[name].shape), stored)[1])

    def _endings(self, layers: Sequence[str]) -> list[str]:
        """Find endings of layers' names as PEFT calls them."""
        there = {name: self._there(name) for name in self._all_layers}
        return shortest_endings([there[name] for name in layers], list(there.values()))

    @property
    def _layout(self) -> WeightLayout:
        return self.model.weight_layout(self.model.config)

    @property
    def _tied_parameter(self) -> str | None:
        """The embedding's weight, where the head has none of its own."""
        if HEAD_WEIGHT not in self._layout.optional:
            return None
        embedding = self.model.get_input_embeddings().weight
        return next(name for name, parameter in self.model.named_parameters() if parameter is embedding)

    @property
    def _tied_head(self) -> list[str]:
        """PEFT's copy of an embedding does not share the head any more: it is told to save both."""
        tied = self._tied_parameter
        return [HEAD] if tied is not None and tied in trained_tensors(self.model) else []


def _with_rows(model: MixPretrainedModel, adapter: Adapter) -> MixPretrainedModel:
    """Give the base rows for tokens that the adapter has added to it: those of its whole embedding."""
    embedding = model.get_input_embeddings().weight
    name = next(name for name, parameter in model.named_parameters() if parameter is embedding)
    stored = adapter.tensors.get(name)
    if stored is None or stored.shape[1:] != (embedding.shape[1],):
        return model
    return with_rows(model, max(stored.shape[0], model.config.vocab_size))


def _check_layers(model: MixPretrainedModel, adapter: Adapter) -> None:
    adapter.refuse_unless_plain()
    linear = set(linear_layers(model))
    problems = [f"{name}.lora_A, for which there is no linear layer" for name in adapter.layers if name not in linear]
    if problems:
        raise adapter.refusal("the model", problems)


def _whole_parameters(model: MixPretrainedModel, adapter: Adapter) -> list[str]:
    """Name the parameters that the adapter replaces, but for biases that its `bias` names; a head that shares the
    embedding must go on doing so."""
    parameters = dict(model.named_parameters())
    unknown = [name for name in adapter.whole if name not in parameters]
    optional = model.weight_layout(model.config).optional
    problems = [f"{name}, which the model does not have" for name in unknown if name not in optional]
    if problems:
        raise adapter.refusal("the model", problems)
    known = [name for name in adapter.whole if name in parameters]
    tied = model.get_input_embeddings().weight
    if HEAD_WEIGHT in optional and not unknown and any(parameters[name] is tied for name in known):
        raise _trained_apart(adapter, "holds an embedding without the head")
    for name in unknown:
        if not any(same_numbers(adapter.tensors[name], adapter.tensors[other]) for other in known):
            raise _trained_apart(adapter, f"holds {name}, which differs from the embedding")
    return known if adapter.config.bias == "none" else [name for name in known if not _is_bias(adapter, name)]


def _is_bias(adapter: Adapter, name: str) -> bool:
    """Tell whether a parameter is a bias, and of no layer that is saved whole."""
    there = names.parse(adapter.tensors[name].name).place
    return "bias" in name and not adapter.config.copies(there.rpartition(".")[0])


def _trained_apart(adapter: Adapter, what: str) -> ValueError:
    return ValueError(
        f"{adapter.folder}: this adapter {what}, but the two are one weight in the model: they were trained apart, "
        "without PEFT's `ensure_weight_tying`. Merge it into its base with paddlemix/tools/merge_lora_params.py, which "
        "gives each a weight of its own, and give the merged model as `model_name_or_path`."
    )
