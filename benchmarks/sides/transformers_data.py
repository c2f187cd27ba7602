"""Preparing images in transformers on torch: `python transformers_data.py FOLDER REPEATS` prints a JSON object."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from data_shape import MAX_PIXELS
from measuring import seconds_of
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, repeats = Path(sys.argv[1]), int(sys.argv[2])
    paths = sorted(folder.glob("*.jpg"))
    processor = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=MAX_PIXELS)

    def prepare() -> None:
        """Decode, resize, normalise and cut every image."""
        for path in paths:
            with Image.open(path) as image:
                processor(image.convert("RGB"), return_tensors="np")

    seconds = seconds_of(prepare, repeats)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    json.dump({"images_a_second": [len(paths) / one for one in seconds], "versions": versions}, sys.stdout)
