"""The model that a trained adapter is on where earlier adapters have become a part of it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.output_dir import merged_base_folder
from paddlemix.contract import Processor
from paddlemix.files import new_folder
from paddlemix.models.base import MixPretrainedModel
from paddlemix.peft.lora_model import MixLoRAModel

logger = logging.getLogger(__name__)


def merge_adapters(model: MixPretrainedModel, adapters: Sequence[Path]) -> MixPretrainedModel:
    """Make adapters a part of a model, one after the other.

    Args:
        model: that the first of them is on.
        adapters: their folders.

    Returns:
        The model.

    Raises:
        FileNotFoundError: a file of an adapter is missing.
        ValueError: it is damaged, or was not trained on this model.
    """
    for adapter in adapters:
        model = MixLoRAModel.from_pretrained(model, adapter).take_off()
        logger.info("%s has become part of the model, and is not trained any more.", adapter)
    return model


def write_merged_base(config: FinetuneConfig, model: MixLoRAModel, processor: Processor) -> None:
    """Write it into `output_dir`; a run that goes on finds it there.

    Args:
        config: the run's.
        model: not trained yet.
        processor: saved with it.

    Raises:
        OSError: it cannot be written.
    """
    folder = merged_base_folder(config)
    if folder.exists():
        if config.training["resume_from_checkpoint"]:
            return
        shutil.rmtree(folder)  # an earlier run's, which `overwrite_output_dir` gives up
    logger.info("The adapter will be on the model with the earlier ones in it, which is written to %s.", folder)
    with new_folder(folder) as staged:
        model.save_base(staged)
        processor.save_pretrained(staged)
