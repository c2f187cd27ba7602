"""What a family says of itself: one object a family, in its own folder; the registry lists the folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from paddlemix.contract import ModelConfig, Processor, Tokenizer

if TYPE_CHECKING:
    from paddlemix.generation.dialogue import Dialogue
    from paddlemix.models.base import MixPretrainedModel


class ConfigClass(Protocol):
    """Makes a config of what a config.json says."""

    def __call__(self, **values: Any) -> ModelConfig:
        """Check and hold the values."""
        ...


class ProcessorClass(Protocol):
    """Reads a checkpoint's processor."""

    def from_pretrained(self, name_or_path: Any, **settings: Any) -> Processor:
        """Read tokenizer, template and settings of images and videos."""
        ...


class TokenizerClass(Protocol):
    """Reads a checkpoint's tokenizer."""

    def from_pretrained(self, name_or_path: Any) -> Tokenizer:
        """Read the tokenizer's files."""
        ...


@dataclass(frozen=True)
class Family:
    """A model family; its classes are named, and imported when they are asked for.

    Attributes:
        package: its folder, which hands on the classes below.
        model_type: of its config.json.
        architecture: of its config.json, the model's class.
        config: name of the config class.
        processor: name of the processor class.
        tokenizer: where the tokenizer class is, `module:name`; families of one vocabulary share it.
        vision_globs: parameters of the vision tower, for `freeze_vit`.
        aligner_globs: parameters between tower and language model, for `freeze_aligner`.
        language_globs: parameters of the language model, for `freeze_llm`.
        published: the base models on the hub by name, and what the config.json of each says beside the config class's
            defaults: no file has to be fetched to know their sizes.
        dialogue: where the class is that asks its models, `module:name`; the neutral one unless its users ask in a way
            of their own.
    """

    package: str
    model_type: str
    architecture: str
    config: str
    processor: str
    tokenizer: str
    vision_globs: tuple[str, ...]
    aligner_globs: tuple[str, ...]
    language_globs: tuple[str, ...]
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dialogue: str = "paddlemix.generation.dialogue:Dialogue"

    @property
    def model_class(self) -> type[MixPretrainedModel]:
        """The model's class."""
        return getattr(import_module(self.package), self.architecture)

    @property
    def config_class(self) -> ConfigClass:
        """The config's class."""
        return getattr(import_module(self.package), self.config)

    @property
    def processor_class(self) -> ProcessorClass:
        """The processor's class."""
        return getattr(import_module(f"{self.package}.processing"), self.processor)

    @property
    def tokenizer_class(self) -> TokenizerClass:
        """The tokenizer's class."""
        return _named(self.tokenizer)

    @property
    def dialogue_class(self) -> type[Dialogue]:
        """The class that asks its models."""
        return _named(self.dialogue)


def _named(place: str) -> Any:
    """Import what `module:name` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
