"""PaddleNLP's TrainingArguments, changed where VisualDL does not take them."""

from __future__ import annotations

from typing import Any

from paddlenlp.trainer import TrainingArguments


class SFTTrainingArguments(TrainingArguments):
    """TrainingArguments whose values VisualDL can record."""

    def to_sanitized_dict(self) -> dict[str, Any]:
        """Make words of truth values: VisualDL 2.5 takes them for integers, which protobuf 5 and later refuse."""
        values = super().to_sanitized_dict()
        return {name: str(value) if isinstance(value, bool) else value for name, value in values.items()}
