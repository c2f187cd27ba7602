"""Qwen2.5-VL's processor: Qwen2-VL's, with seconds on the time axis, and boxes in pixels of the resized image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from paddlemix.contract import Grounding, GroundingForm, Size
from paddlemix.files import read_json_object, write_json
from paddlemix.models.config_file import read_section
from paddlemix.models.qwen2_5_vl.seconds import PUBLISHED_STEPS, steps_per_second
from paddlemix.models.qwen2_vl.media import Media, Shown
from paddlemix.models.qwen2_vl.positions import TimeScale
from paddlemix.models.qwen2_vl.processing import GROUNDING, Qwen2VLProcessor
from paddlemix.names import PREPROCESSOR_FILE, VIDEO_PREPROCESSOR_FILE
from paddlemix.processors.base import Limits
from paddlemix.processors.coordinates import SeenPixels
from paddlemix.processors.json_grounding import JsonPlaces
from paddlemix.processors.preprocessor import stored_settings
from paddlemix.processors.settings import MediaSettings
from paddlemix.processors.sources import ProcessorSources

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

# Where a folder says that its model was trained with another form than the published ones: in the file of images, whose
# pixels the numbers count. transformers ignores what it does not know there.
FORM_KEY = "grounding"
PUBLISHED_FORM: GroundingForm = "json"
PROCESSOR_CLASS = "Qwen2_5_VLProcessor"


class Qwen25VLProcessor(Qwen2VLProcessor):
    """Everything between a conversation, or a rendered prompt, and the model's inputs.

    Args:
        *parts: see `Qwen2VLProcessor`.
        **limits: see `Qwen2VLProcessor`.

    Attributes:
        grounding: in pixels of the image as the model sees it: bounds of images must be the same whenever a model is
            trained and asked.
        grounding_form: "json", or "tagged" with the same numbers between Qwen2-VL's tags.
        tokens_per_second: steps of the time axis in a second.
    """

    grounding: Grounding
    grounding_form: GroundingForm
    tokens_per_second: float

    def __init__(self, *parts: Any, **limits: Any) -> None:
        super().__init__(*parts, **limits)
        self.choose_grounding(PUBLISHED_FORM)
        self.tokens_per_second = PUBLISHED_STEPS

    def choose_grounding(self, form: GroundingForm) -> None:
        """Write and read boxes and points in another form from now on.

        Args:
            form: "json", or "tagged".

        Raises:
            ValueError: there is no such form.
        """
        units = SeenPixels(self._seen_size)
        if form == "json":
            self.grounding = JsonPlaces(units)
        elif form == "tagged":
            self.grounding = replace(GROUNDING, units=units)
        else:
            raise ValueError(f"`grounding` is {form!r}; expected one of {', '.join(get_args(GroundingForm))}.")
        self.grounding_form = form

    @classmethod
    def _read(cls, sources: ProcessorSources, settings: MediaSettings, **limits: Unpack[Limits]) -> Self:
        processor = super()._read(sources, settings, **limits)
        vision = read_section(sources.model, "vision_config")
        processor.tokens_per_second = steps_per_second(vision)
        stored = stored_settings(sources.media, PREPROCESSOR_FILE)
        try:
            processor.choose_grounding(stored.values.get(FORM_KEY) or PUBLISHED_FORM)
        except ValueError as error:
            raise ValueError(f"{stored.source}: {error}") from error
        return processor

    def _save_settings(self, folder: Path) -> None:
        super()._save_settings(folder)
        form = {} if self.grounding_form == PUBLISHED_FORM else {FORM_KEY: self.grounding_form}
        for name, own in ((PREPROCESSOR_FILE, form), (VIDEO_PREPROCESSOR_FILE, {})):
            values = read_json_object(folder / name, missing_ok=True)
            write_json(folder / name, {**values, "processor_class": PROCESSOR_CLASS, **own})

    def _what_sizes_depend_on(self) -> tuple[Any, ...]:
        return *super()._what_sizes_depend_on(), self.grounding_form

    def _seen_size(self, size: Size) -> Size:
        """Tell the size in which the model sees an image."""
        return self.image_processor.resized(*size)

    def _inputs(self, media: Media) -> dict[str, np.ndarray]:
        seconds = [clip.seconds for clip in media.sizes.clips]
        lasting = {"second_per_grid_ts": np.array(seconds, dtype=np.float32)} if seconds else {}
        return {**super()._inputs(media), **lasting}

    def _time_scales(self, shown: list[Shown]) -> list[TimeScale]:
        return [TimeScale(one.seconds, self.tokens_per_second) for one in shown]
