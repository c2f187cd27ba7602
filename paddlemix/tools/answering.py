"""What the command lines that ask a model have alike: the flags that name it, and how it is found and loaded."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.contract import GroundingForm, Processor
from paddlemix.generation import GenerationConfig
from paddlemix.generation.dialogue import Dialogue
from paddlemix.models.registry import find_family
from paddlemix.peft.folders import find_folders, warn_of_another_base
from paddlemix.processors.tokens.rows import check_rows
from paddlemix.tools.generation_flags import add_generation_flags, errors_name_flags, generation_settings
from paddlemix.tools.precision import DTYPES, usable_dtype


def add_model_flags(parser: argparse.ArgumentParser, default_model: str | None) -> None:
    """Add the flags that name a model and say how it answers.

    Args:
        parser: of the command line.
        default_model: the model where none is named; None makes naming one a duty.
    """
    named = f" (default: {default_model})" if default_model else ""
    parser.add_argument(
        "--model_name_or_path",
        default=default_model,
        required=default_model is None,
        help=f"the folder of a model or an adapter, or owner/name on the hub{named}",
    )
    parser.add_argument("--lora_path", help="an adapter's folder, where --model_name_or_path is its base")
    add_grounding_flag(parser)
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="precision (default: bfloat16 on a GPU, float16 on one before Ampere, float32 without one)",
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("output"), help="for the drawn images (default: output)"
    )
    add_generation_flags(
        parser,
        otherwise="What is not given is as the model's generation_config.json says, or else up to 512 tokens, greedily",
    )


def add_grounding_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that chooses the form of boxes and points.

    Args:
        parser: of the command line.
    """
    parser.add_argument(
        "--grounding",
        choices=get_args(GroundingForm),
        help="form of boxes and points, where the family has several (default: what the model was trained with)",
    )


@dataclass(frozen=True)
class AskedModel:
    """A model that a command line names, found and not loaded yet.

    Attributes:
        dialogue_class: how its family is asked.
        name_or_path: of the model.
        lora_path: of the adapter on it, or None.
        dtype: its precision.
        generation: how it answers.
        grounding: the form of its boxes and points; None leaves it to the model's folder.
    """

    dialogue_class: type[Dialogue]
    name_or_path: str
    lora_path: str | None
    dtype: str
    generation: GenerationConfig
    grounding: GroundingForm | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> AskedModel:
        """Find what the flags of `add_model_flags` name.

        Args:
            args: the command line.

        Returns:
            The model.

        Raises:
            OSError: there is no such model, or it cannot be fetched.
            ValueError: a setting makes no sense here.
        """
        dtype = usable_dtype(args.dtype)
        folders = find_folders(args.model_name_or_path, args.lora_path)
        if args.lora_path and folders.adapter:
            warn_of_another_base(args.model_name_or_path, folders.adapter)
        with errors_name_flags():
            generation = GenerationConfig.from_pretrained(folders.generation, **generation_settings(args))
        dialogue_class = find_family(folders.model).dialogue_class
        return cls(dialogue_class, args.model_name_or_path, args.lora_path, dtype, generation, args.grounding)

    def load_processor(self) -> Processor:
        """Load the processor alone, which is fast.

        Returns:
            The processor.

        Raises:
            OSError: a file is missing, or cannot be fetched.
            ValueError: a file is damaged.
        """
        return AutoProcessorMIX.from_pretrained(self.name_or_path, lora_path=self.lora_path, grounding=self.grounding)

    def load(self, processor: Processor | None = None) -> Dialogue:
        """Load the model.

        Args:
            processor: as `load_processor` gave it; None loads it too.

        Returns:
            What asks the model.

        Raises:
            OSError: a file is missing, or cannot be fetched.
            ValueError: a file is damaged, or the model has no rows for some of the tokens.
        """
        processor = processor or self.load_processor()
        model = AutoModelMIX.from_pretrained(self.name_or_path, dtype=self.dtype, lora_path=self.lora_path)
        check_rows(processor.tokenizer, model.config.vocab_size, self.lora_path or self.name_or_path)
        return self.dialogue_class(model, processor, self.generation)
