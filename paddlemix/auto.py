"""Classes chosen by a checkpoint's config.json, wherever the checkpoint is; an adapter stands for its base with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from paddlemix.models.config_file import make_config, read_config
from paddlemix.models.registry import find_family
from paddlemix.peft.folders import find_folders
from paddlemix.processors.sources import ProcessorSources

if TYPE_CHECKING:
    from paddlemix.contract import ModelConfig, Processor, Tokenizer
    from paddlemix.models.base import MixPretrainedModel
    from paddlemix.peft.lora_model import MixLoRAModel

__all__ = ["AutoConfigMIX", "AutoModelMIX", "AutoProcessorMIX", "AutoTokenizerMIX"]


class AutoConfigMIX:
    """The config of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str]) -> ModelConfig:
        """Read config.json.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub; an adapter of either.

        Returns:
            The family's config.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or it has no config.json.
            ValueError: it names no known family.
        """
        folder = find_folders(name_or_path).model
        return make_config(find_family(folder).config_class, folder, read_config(folder))


class AutoModelMIX:
    """The model of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str],
        dtype: str = "float32",
        *,
        lora_path: str | os.PathLike[str] | None = None,
        tensor_parallel_degree: int = 1,
    ) -> MixPretrainedModel | MixLoRAModel:
        """Build and fill the model.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub; an adapter of either.
            dtype: "float32", "bfloat16" or "float16".
            lora_path: an adapter to put on the model.
            tensor_parallel_degree: how many ranks share the model, see `MixPretrainedModel.from_pretrained`.

        Returns:
            The family's model, in evaluation mode; with an adapter a `MixLoRAModel` around it, or the model with the
            adapter as a part of its weights where it is more than products beside linear layers.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of it is missing.
            ValueError: config and weights do not fit, the adapter is one of another base, or so many ranks cannot share
                the model.
        """
        folders = find_folders(name_or_path, lora_path, weights=True)
        if folders.adapter is None:
            return find_family(folders.model).model_class.from_pretrained(
                folders.model, dtype=dtype, tensor_parallel_degree=tensor_parallel_degree
            )
        if tensor_parallel_degree > 1:
            raise ValueError(
                f"`tensor_parallel_degree` is {tensor_parallel_degree}, but adapters are not split over ranks. Merge "
                f"{folders.adapter} into its base first with paddlemix/tools/merge_lora_params.py."
            )
        from paddlemix.peft.loading import load_adapted  # takes a second, so only once it is needed

        return load_adapted(folders.model, folders.adapter, dtype)


class AutoProcessorMIX:
    """The processor of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str], *, lora_path: str | os.PathLike[str] | None = None, **settings: Any
    ) -> Processor:
        """Read tokenizer, template and image settings.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub; an adapter of either.
            lora_path: an adapter for the model; its own settings, where it has them, go before the model's.
            **settings: the family's, such as min_pixels, max_pixels and max_length.

        Returns:
            The family's processor.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of it is missing.
            ValueError: config.json names no known family.
        """
        folders = find_folders(name_or_path, lora_path)
        family = find_family(folders.model)
        return family.processor_class.from_pretrained(folders.model, lora_path=folders.adapter, **settings)


class AutoTokenizerMIX:
    """The tokenizer of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str]) -> Tokenizer:
        """Read the tokenizer's files.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub; an adapter of either.

        Returns:
            The family's tokenizer.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of it is missing.
            ValueError: config.json names no known family.
        """
        folders = find_folders(name_or_path)
        sources = ProcessorSources.of(folders.model, folders.adapter)
        return find_family(folders.model).tokenizer_class.from_pretrained(sources.tokenizer)
