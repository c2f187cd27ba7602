"""Classes chosen by a checkpoint's config.json, wherever the checkpoint is."""

from __future__ import annotations

import os
from typing import Any

from paddlemix.hub import local_folder
from paddlemix.models.base import read_config
from paddlemix.models.registry import find_family

__all__ = ["AutoConfigMIX", "AutoModelMIX", "AutoProcessorMIX", "AutoTokenizerMIX"]


class AutoConfigMIX:
    """The config of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str]) -> Any:
        """Read config.json.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.

        Returns:
            The family's config.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or it has no config.json.
            ValueError: it names no known family.
        """
        folder = local_folder(name_or_path)
        return find_family(folder).config_class(**read_config(folder))


class AutoModelMIX:
    """The model of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], dtype: str = "float32") -> Any:
        """Build and fill the model.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.
            dtype: "float32", "bfloat16" or "float16".

        Returns:
            The family's model, in evaluation mode.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of it is missing.
            ValueError: config and weights do not fit.
        """
        folder = local_folder(name_or_path, weights=True)
        return find_family(folder).model_class.from_pretrained(folder, dtype=dtype)


class AutoProcessorMIX:
    """The processor of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], **settings: Any) -> Any:
        """Read tokenizer, template and picture settings.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.
            **settings: the family's, such as min_pixels, max_pixels and max_length.

        Returns:
            The family's processor.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of it is missing.
            ValueError: config.json names no known family.
        """
        folder = local_folder(name_or_path)
        return find_family(folder).processor_class.from_pretrained(folder, **settings)


class AutoTokenizerMIX:
    """The tokenizer of whichever family a checkpoint is of."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str]) -> Any:
        """Read the tokenizer's files.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.

        Returns:
            The family's tokenizer.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or a file of it is missing.
            ValueError: config.json names no known family.
        """
        folder = local_folder(name_or_path)
        return find_family(folder).tokenizer_class.from_pretrained(folder)
