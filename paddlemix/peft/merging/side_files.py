"""What stands beside the weights of a merged model: the base's files, and what an adapter's folder says otherwise."""

from __future__ import annotations

from pathlib import Path

from paddlemix.files import copy_settings_file, write_json
from paddlemix.generation.ends import end_ids
from paddlemix.generation.published import read_generation_file
from paddlemix.models.config_file import read_config
from paddlemix.models.registry import find_family
from paddlemix.names import GENERATION_FILE
from paddlemix.processors.sources import ProcessorSources
from paddlemix.processors.templates.files import DEFAULT, stored_templates, write_templates
from paddlemix.side_files import copy_side_files, settings_files

# Of two forms of the settings of images, the one that counts where a folder has both.
_OLDER, _NEWER = "preprocessor_config.json", "processor_config.json"


def write_side_files(folder: Path, base: Path, adapter: Path) -> None:
    """Copy all of a base but its weights, and what an adapter's folder says otherwise.

    Args:
        folder: of the merged model.
        base: the base's folder.
        adapter: the adapter's folder.

    Raises:
        ValueError: a file is damaged.
    """
    own = {file.name: file for file in settings_files(adapter)}
    copy_side_files(folder, base)
    if _OLDER in own and _NEWER not in own:
        (folder / _NEWER).unlink(missing_ok=True)
    for name, file in own.items():
        copy_settings_file(file, folder / name)
    _write_templates(folder, ProcessorSources.of(base, adapter))
    _end_answers_as_trained(folder, base, adapter)


def _write_templates(folder: Path, sources: ProcessorSources) -> None:
    """Let the merged model have the templates that base and adapter have beside one another, wherever they stand."""
    named = {name: one.text for name, one in stored_templates(sources.template).named.items()}
    found = {name: one.text for name, one in stored_templates(folder).named.items()}
    if DEFAULT in named and named != found:
        write_templates(folder, named.pop(DEFAULT), named)


def _end_answers_as_trained(folder: Path, base: Path, adapter: Path) -> None:
    """Name the end of answers that an adapter's tokenizer names, where no generation_config.json of its own does.

    Programs that tune a base on turns change its tokenizer's `eos_token`, and the base's file would go on to name the
    old one alone.
    """
    if (adapter / GENERATION_FILE).is_file() or ProcessorSources.of(base, adapter).tokenizer != adapter:
        return
    end = find_family(base).tokenizer_class.from_pretrained(adapter).eos_token_id
    values = read_generation_file(folder)
    ends = end_ids(values.get("eos_token_id")) or end_ids(read_config(base).get("eos_token_id"))
    if ends and end not in ends:
        write_json(folder / GENERATION_FILE, {**values, "eos_token_id": [end, *ends]})
