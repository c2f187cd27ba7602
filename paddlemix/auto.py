"""Classes chosen by a checkpoint's config.json, wherever the checkpoint is; an adapter stands for its base with it."""

from __future__ import annotations

import os
from typing import Any

from paddlemix.models.base import read_config
from paddlemix.models.registry import find_family
from paddlemix.peft.folders import find_folders

__all__ = ["AutoConfigMIX", "AutoModelMIX", "AutoProcessorMIX", "AutoTokenizerMIX"]


class AutoConfigMIX:
    """The config of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str]) -> Any:
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
        return find_family(folder).config_class(**read_config(folder))


class AutoModelMIX:
    """The model of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str],
        dtype: str = "float32",
        *,
        lora_path: str | os.PathLike[str] | None = None,
    ) -> Any:
        """Build and fill the model.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub; an adapter of either.
            dtype: "float32", "bfloat16" or "float16".
            lora_path: an adapter to put on the model.

        Returns:
            The family's model, in evaluation mode; with an adapter a `MixLoRAModel` around it.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of it is missing.
            ValueError: config and weights do not fit, or the adapter is one of another base.
        """
        folders = find_folders(name_or_path, lora_path, weights=True)
        model = find_family(folders.model).model_class.from_pretrained(folders.model, dtype=dtype)
        if folders.adapter is None:
            return model
        from paddlemix.peft.lora_model import MixLoRAModel  # takes a second, so only once it is needed

        return MixLoRAModel.from_pretrained(model, folders.adapter)


class AutoProcessorMIX:
    """The processor of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str], *, lora_path: str | os.PathLike[str] | None = None, **settings: Any
    ) -> Any:
        """Read tokenizer, template and picture settings.

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
        return find_family(folders.model).processor_class.from_pretrained(folders.processor, **settings)


class AutoTokenizerMIX:
    """The tokenizer of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str]) -> Any:
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
        return find_family(folders.model).tokenizer_class.from_pretrained(folders.processor)
