"""Which folders the parts of a processor are read from, where a model has an adapter on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddlemix.names import PREPROCESSOR_FILE, PROCESSOR_FILE
from paddlemix.processors.templates.files import stored_templates

_MEDIA = (PREPROCESSOR_FILE, PROCESSOR_FILE)
# A tokenizer's other files say nothing without one of these.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "*.tiktoken")


@dataclass(frozen=True)
class ProcessorSources:
    """Folders of a checkpoint and of an adapter on it; what the adapter's own folder holds goes before.

    Attributes:
        model: holds config.json.
        media: holds the settings of images and videos.
        tokenizer: holds the vocabulary and the added tokens.
        template: holds the chat template.
    """

    model: Path
    media: Path
    tokenizer: Path
    template: Path

    @classmethod
    def of(cls, model: Path, adapter: Path | None) -> ProcessorSources:
        """Find out which folder each part is in.

        Args:
            model: the model's folder.
            adapter: the folder of an adapter on it, or None.

        Returns:
            The folders; what the adapter's does not hold is the model's.

        Raises:
            ValueError: a file with chat templates is damaged.
        """
        if adapter is None:
            return cls(model, model, model, model)
        has_media = any((adapter / name).is_file() for name in _MEDIA)
        has_tokenizer = any(any(adapter.glob(name)) for name in _VOCABULARIES)
        has_template = bool(stored_templates(adapter).named)
        media, tokenizer, template = (adapter if one else model for one in (has_media, has_tokenizer, has_template))
        return cls(model, media, tokenizer, template)
