"""Classes chosen by a checkpoint's config.json."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from paddlemix.models.base import read_config
from paddlemix.models.registry import find_family

__all__ = ["AutoConfigMIX", "AutoModelMIX", "AutoProcessorMIX"]


class AutoConfigMIX:
    """The config of whichever family a folder holds."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str]) -> Any:
        """Read config.json.

        Args:
            name_or_path: a local folder.

        Returns:
            The family's config.

        Raises:
            FileNotFoundError: the folder or its config.json is missing.
            ValueError: it names no known family.
        """
        folder = local_folder(name_or_path)
        return find_family(folder).config_class(**read_config(folder))


class AutoModelMIX:
    """The model of whichever family a folder holds."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], dtype: str = "float32") -> Any:
        """Build and fill the model.

        Args:
            name_or_path: a local folder.
            dtype: "float32", "bfloat16" or "float16".

        Returns:
            The family's model, in evaluation mode.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: config and weights do not fit.
        """
        folder = local_folder(name_or_path)
        return find_family(folder).model_class.from_pretrained(folder, dtype=dtype)


class AutoProcessorMIX:
    """The processor of whichever family a folder holds."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], **settings: Any) -> Any:
        """Read tokenizer, template and picture settings.

        Args:
            name_or_path: a local folder.
            **settings: the family's, such as min_pixels, max_pixels and max_length.

        Returns:
            The family's processor.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: config.json names no known family.
        """
        folder = local_folder(name_or_path)
        return find_family(folder).processor_class.from_pretrained(folder, **settings)


def local_folder(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder that a model's name or path stands for.

    Args:
        name_or_path: a local folder.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`model_name_or_path` {name_or_path} is no local folder. Download the checkpoint and give its folder; "
            "fetching published names is not available yet."
        )
    return folder
