"""Names and numbers that several rooms must spell alike."""

from __future__ import annotations

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
VIDEO_PREPROCESSOR_FILE = "video_preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"

# The label of a place whose token is not asked for, as the field and its loss functions have it.
IGNORED_LABEL = -100

# What ends a turn of ChatML, in both families' vocabularies.
END_OF_TURN = "<|im_end|>"

# The inputs of models that hold most of a batch's bytes.
PIXEL_INPUTS = ("pixel_values", "pixel_values_videos")
