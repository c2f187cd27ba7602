"""Make the JSON files of tests/fixtures/published_configs/ with the release of transformers that is installed.

    python tests/models/make_published_configs.py    # writes <release>/ beside hub/

`hub/` has configs in the flat form of the published checkpoints, with four layers, and with numbers that are not those
of any release's classes. Of each of them `<release>/` has

- `resaved/`: what `from_pretrained` and `save_pretrained` of that release made of it, as a full fine-tune or a merge
  does;
- `nested/`: what `save_pretrained` wrote of a config that was made of a `text_config`, from release 4.52 on;
- `reads.json`: what the release reads from the files of `ours/`, which paddlemix wrote, and what made it fail.

`processors/` has the settings of images and videos as `save_pretrained` of the whole processor wrote them; releases
from 4.52 on need torchvision for it. Made with 4.45.2, 4.49.0, 4.52.4, 4.55.4, 4.57.6 and 5.24.0; 4.45 has no
Qwen2.5-VL.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import transformers

FIXTURES = Path(__file__).parents[1] / "fixtures"
ROOT = FIXTURES / "published_configs"
RELEASE = tuple(map(int, transformers.__version__.split(".")[:2]))
CLASSES = {"qwen2_vl": "Qwen2VLConfig", "qwen2_5_vl": "Qwen2_5_VLConfig"}
PROCESSORS = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}
# Of the language model, as `text_config` has them.
TEXT = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
    "max_position_embeddings", "rms_norm_eps", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
NOT_TEXT = (*IDS, "model_type", "architectures", "vision_config", "transformers_version", "vision_token_id")
BOUNDS = {"min_pixels": 4 * 28 * 28, "max_pixels": 640 * 28 * 28}
VIDEO = {"fps": 1.5, "min_frames": 6, "max_frames": 96}


def main() -> None:
    """Write the release's folder."""
    folder = ROOT / ".".join(map(str, RELEASE))
    shutil.rmtree(folder, ignore_errors=True)
    for path in sorted((ROOT / "hub").glob("*.json")):
        values = json.loads(path.read_text("utf-8"))
        config_class = getattr(transformers, CLASSES[values["model_type"]], None)
        if config_class is None:
            continue
        saved(read(config_class, values), folder / "resaved" / path.name)
        if RELEASE >= (4, 52):
            saved(nested(config_class, values), folder / "nested" / path.name)
    (folder / "reads.json").write_text(json.dumps(what_is_read(), indent=1) + "\n", encoding="utf-8")
    for model_type, name in PROCESSORS.items():
        if hasattr(transformers, name):
            save_processor(getattr(transformers, name), folder / "processors" / model_type)


def read(config_class: type, values: dict[str, Any]) -> Any:
    """Let the release read a config.json."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(values), encoding="utf-8")
        return config_class.from_pretrained(folder)


def nested(config_class: type, values: dict[str, Any]) -> Any:
    """Make a config as scripts that build models do."""
    text = {key: one for key, one in values.items() if key not in NOT_TEXT}
    outer = {key: values[key] for key in IDS}
    return config_class(text_config=text, vision_config=values["vision_config"], **outer)


def saved(config: Any, path: Path) -> None:
    """Write a config's file."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(folder, "config.json"), path)


def what_is_read() -> dict[str, Any]:
    """Tell what the release reads from the configs that paddlemix wrote."""
    found: dict[str, Any] = {}
    for path in sorted((ROOT / "ours").glob("*.json")):
        values = json.loads(path.read_text("utf-8"))
        config_class = getattr(transformers, CLASSES[values["model_type"]], None)
        if config_class is not None:
            found[path.stem] = numbers(read(config_class, values))
    return found


def numbers(config: Any) -> dict[str, Any]:
    """Tell what a model is built by, under the names of the flat form."""
    text = getattr(config, "text_config", config)
    rope = getattr(text, "rope_parameters", None) or text.rope_scaling
    vision = config.vision_config.to_dict()
    tied = config if RELEASE >= (5, 0) else text
    return {
        **{name: getattr(text, name) for name in TEXT},
        **{name: getattr(config, name, None) for name in IDS},
        "tie_word_embeddings": tied.tie_word_embeddings,
        "rope_theta": rope.get("rope_theta") or text.rope_theta,
        "rope_type": rope.get("rope_type"),
        "mrope_section": rope["mrope_section"],
        "factor": rope.get("factor"),
        "vision_config": {key: value for key, value in vision.items() if isinstance(value, (int, float, str, list))},
    }


def save_processor(processor_class: type, folder: Path) -> None:
    """Write the settings of a processor with bounds of its own."""
    source = FIXTURES / "qwen2_vl_processor"
    tokenizer = transformers.Qwen2TokenizerFast.from_pretrained(source)
    parts = {"image_processor": transformers.Qwen2VLImageProcessor(**BOUNDS, image_std=[0.3, 0.3, 0.25])}
    if RELEASE >= (4, 52):
        parts["video_processor"] = transformers.Qwen2VLVideoProcessor(
            **VIDEO, min_pixels=8 * 28 * 28, max_pixels=99 * 28 * 28
        )
    processor = processor_class(tokenizer=tokenizer, **parts, chat_template="{{ messages }}")
    with tempfile.TemporaryDirectory() as saved_in:
        processor.save_pretrained(saved_in)
        folder.mkdir(parents=True)
        for path in sorted(Path(saved_in).glob("*processor_config.json")):
            shutil.copyfile(path, folder / path.name)


if __name__ == "__main__":
    main()
