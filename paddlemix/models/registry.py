"""The model families, and which one a checkpoint belongs to: config.json says it, never the folder's name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from paddlemix.models.base import read_config
from paddlemix.names import CONFIG_FILE


@dataclass(frozen=True)
class Family:
    """A model family; its classes are named, and imported when they are asked for.

    Attributes:
        model_type: of its config.json.
        architecture: of its config.json, the model's class.
        module: where the model and config classes are.
        config: name of the config class.
        processor_module: where the processor class is.
        processor: name of the processor class.
        tokenizer_module: where the tokenizer class is.
        tokenizer: name of the tokenizer class.
        vision_globs: parameters of the vision tower, for `freeze_vit`.
        aligner_globs: parameters between tower and language model, for `freeze_aligner`.
        language_globs: parameters of the language model, for `freeze_llm`.
    """

    model_type: str
    architecture: str
    module: str
    config: str
    processor_module: str
    processor: str
    tokenizer_module: str
    tokenizer: str
    vision_globs: tuple[str, ...]
    aligner_globs: tuple[str, ...]
    language_globs: tuple[str, ...]

    @property
    def model_class(self) -> Any:
        """The model's class."""
        return getattr(import_module(self.module), self.architecture)

    @property
    def config_class(self) -> Any:
        """The config's class."""
        return getattr(import_module(self.module), self.config)

    @property
    def processor_class(self) -> Any:
        """The processor's class."""
        return getattr(import_module(self.processor_module), self.processor)

    @property
    def tokenizer_class(self) -> Any:
        """The tokenizer's class."""
        return getattr(import_module(self.tokenizer_module), self.tokenizer)


FAMILIES = (
    Family(
        model_type="qwen2_vl",
        architecture="Qwen2VLForConditionalGeneration",
        module="paddlemix.models.qwen2_vl",
        config="Qwen2VLConfig",
        processor_module="paddlemix.models.qwen2_vl.processing",
        processor="Qwen2VLProcessor",
        tokenizer_module="paddlemix.models.qwen2_vl.tokenizer",
        tokenizer="Qwen2Tokenizer",
        vision_globs=("visual.patch_embed.*", "visual.blocks.*"),
        aligner_globs=("visual.merger.*",),
        language_globs=("model.*", "lm_head.*"),
    ),
    Family(
        model_type="qwen",
        architecture="QWenLMHeadModel",
        module="paddlemix.models.qwen_vl",
        config="QWenConfig",
        processor_module="paddlemix.models.qwen_vl.processing",
        processor="QwenVLProcessor",
        tokenizer_module="paddlemix.models.qwen_vl.tokenizer",
        tokenizer="QwenTokenizer",
        vision_globs=(
            "transformer.visual.conv1.*",
            "transformer.visual.positional_embedding",
            "transformer.visual.ln_pre.*",
            "transformer.visual.transformer.*",
            "transformer.visual.ln_post.*",
            "transformer.visual.proj",
        ),
        aligner_globs=("transformer.visual.attn_pool.*",),
        language_globs=("transformer.wte.*", "transformer.h.*", "transformer.ln_f.*", "lm_head.*"),
    ),
)


def find_family(folder: Path) -> Family:
    """The family of the checkpoint in `folder`.

    Args:
        folder: holds config.json.

    Returns:
        The first family whose architecture it names; where it names none, that of its `model_type`.

    Raises:
        FileNotFoundError: there is no config.json.
        ValueError: it names no family that is known here.
    """
    values = read_config(folder)
    architectures, model_type = values.get("architectures") or [], values.get("model_type")
    for family in FAMILIES:
        if family.architecture in architectures or (not architectures and family.model_type == model_type):
            return family
    known = ", ".join(f"{family.architecture} ({family.model_type})" for family in FAMILIES)
    raise ValueError(
        f"{folder / CONFIG_FILE}: `architectures` {architectures} and `model_type` {model_type!r} name no model known "
        f"here. Known: {known}."
    )
