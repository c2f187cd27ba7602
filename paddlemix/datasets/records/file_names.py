"""The names of record files, and those that are none."""

from __future__ import annotations

import re
from pathlib import Path

TEXT_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".tar")
GZIP_SUFFIX = ".gz"
_INSTEAD = {
    ".tar.gz": "unpack it to a .tar first, from which single records can be read",
    ".tgz": "unpack it to a .tar first, from which single records can be read",
    ".arrow": "write it as Parquet: datasets.load_from_disk(folder).to_parquet(file), or "
    "datasets.Dataset.from_file(file).to_parquet(...)",
    ".zip": "unpack it first",
    ".gz": "only text files may be gzipped; unpack it first",
    ".zst": "unpack it first, or gzip it",
    ".xz": "unpack it first, or gzip it",
    ".bz2": "unpack it first, or gzip it",
    ".xlsx": 'save it as "CSV UTF-8"',
    ".xls": 'save it as "CSV UTF-8"',
}
_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 100_000


def kind_of(file: Path) -> str:
    """Return the ending of a record file's name in small letters, without the `.gz` of a text file."""
    if file.suffix.lower() == GZIP_SUFFIX and Path(file.stem).suffix.lower() in TEXT_SUFFIXES:
        return Path(file.stem).suffix.lower()
    return file.suffix.lower()


def endings() -> str:
    """Name the endings of record files in words."""
    texts = f"{', '.join(TEXT_SUFFIXES)} (with or without {GZIP_SUFFIX} after it)"
    return f"{texts}, {' or '.join(SUFFIXES[len(TEXT_SUFFIXES) :])}"


def checked_file(path: str | Path) -> Path:
    """Make sure that a record file is there.

    Args:
        path: as the config has it.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another suffix.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such record file; correct `data_files` (relative to {Path.cwd()})")
    if kind_of(file) not in SUFFIXES:
        name = file.name.lower()
        instead = next((f"; {advice}" for ending, advice in _INSTEAD.items() if name.endswith(ending)), "")
        raise ValueError(f"{path}: a record file ends in {endings()}, this one in {file.suffix!r}{instead}")
    return file


def check_folder(folder: Path) -> None:
    """Refuse a folder whose records lie in files of another kind.

    Args:
        folder: of an entry of `data_files`.

    Raises:
        ValueError: `datasets` has written it with save_to_disk.
    """
    has_arrow = any(folder.glob("*.arrow")) and (folder / "dataset_info.json").is_file()
    has_splits = (folder / "dataset_dict.json").is_file()
    if has_arrow or has_splits:
        split = '["train"]' if has_splits else ""
        raise ValueError(
            f"{folder}: the folder is what `save_to_disk` of Hugging Face's datasets writes, Arrow files; write its "
            f'records as Parquet with datasets.load_from_disk(...){split}.to_parquet("train.parquet") and name that '
            "file in `data_files`"
        )


def spelled_out(name: str) -> list[str]:
    """Put in the numbers that a name such as `shard-{000..127}.tar` stands for.

    Args:
        name: an entry of `data_files`.

    Returns:
        All names, with as many digits as are written; the name itself where it has no such stretch, or a file is
        called so.

    Raises:
        ValueError: the stretch is empty or longer than any set.
    """
    found = _NUMBERS.search(name)
    if found is None or Path(name).exists():
        return [name]
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + _MOST_SHARDS:
        raise ValueError(
            f"`data_files` holds {name!r}; expected a stretch from a smaller number to a larger one, of at most "
            f"{_MOST_SHARDS:,} files"
        )
    head, tail = name[: found.start()], name[found.end() :]
    return [f"{head}{number:0{len(found[1])}d}{tail}" for number in range(first, last + 1)]
