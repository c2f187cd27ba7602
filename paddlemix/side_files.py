"""Files beside a model's weights: which there are, and how they get into another folder."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path

from paddlemix.files import copy_settings_file
from paddlemix.names import GENERATION_FILE

# Files that hold weights, or are of no use beside others.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pdparams", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.index.json")
# Files that say which tokens there are.
_TOKENIZERS = ("tokenizer*", "added_tokens.json", "vocab.json", "*.tiktoken")
# Settings of tokenizer, processor and generation.
_SETTINGS = (
    GENERATION_FILE, "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "chat_template.*", "special_tokens_map.json", "merges.txt", *_TOKENIZERS,
)  # fmt: skip


def settings_files(folder: Path) -> list[Path]:
    """List the files of tokenizer, processor and generation in a folder."""
    return sorted(file for pattern in _SETTINGS for file in folder.glob(pattern) if file.is_file())


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder says which tokens there are."""
    return any(file.is_file() for pattern in _TOKENIZERS for file in folder.glob(pattern))


def copy_side_files(folder: Path, base: Path) -> None:
    """Copy all of a model's folder but its weights.

    Args:
        folder: to copy to.
        base: the model's folder.

    Raises:
        ValueError: a file of settings is larger than any is, or no regular file.
    """
    for file in sorted(base.iterdir()):
        if file.is_file() and not file.name.startswith(".") and not any(fnmatch(file.name, one) for one in _WEIGHTS):
            copy = copy_settings_file if any(fnmatch(file.name, one) for one in _SETTINGS) else shutil.copyfile
            copy(file, folder / file.name)
