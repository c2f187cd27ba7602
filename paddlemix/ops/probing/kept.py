"""What was measured of this machine, kept below the cache by all that it depends on."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paddlemix._environment import MKL_VARIABLE
from paddlemix.cache import cache_folder, digest_of, only_one, written
from paddlemix.files import read_json_object
from paddlemix.ops.probing.choice import Choice, Rates, choose

logger = logging.getLogger(__name__)

_KIND = "speed"
# Which code the libraries take; they read these variables when they are loaded.
_VARIABLES = (MKL_VARIABLE, "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "PADDLEMIX_OPS_ISA")
_BY_NUMBER = ("threads", "few_rows", "few_rows_by_library")


@dataclass(frozen=True)
class Machine:
    """What rates depend on.

    Attributes:
        processor: its name.
        model: family, model and stepping, and the instructions that it has, since virtual machines hide some.
        cores: that this process may run on.
        threads: how many may compute.
        takes_fewer: whether fewer may as well, as where nobody has set their number.
        versions: of Paddle, oneDNN and the built ops.
        settings: the environment's variables by which libraries choose their code.
    """

    processor: str
    model: str
    cores: int
    threads: int
    takes_fewer: bool
    versions: str
    settings: str

    @classmethod
    def here(cls, cpuinfo: str, cores: int, threads: int, versions: str, *, takes_fewer: bool) -> Machine:
        """Describe the machine of this process.

        Args:
            cpuinfo: the text of /proc/cpuinfo.
            cores: that this process may run on.
            threads: how many may compute.
            versions: of what computes.
            takes_fewer: whether fewer threads may as well.

        Returns:
            The machine.
        """
        first = cpuinfo.split("\n\n")[0]
        told = dict(re.findall(r"^([\w ]+?)\s*: (.*?)\s*$", first, re.MULTILINE))
        numbers = (told.get(key, "") for key in ("vendor_id", "cpu family", "model", "stepping", "flags"))
        settings = " ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ)
        name, model = told.get("model name", "unknown processor"), digest_of(*numbers)
        return cls(name, model, cores, threads, takes_fewer, versions, settings)


@dataclass(frozen=True)
class Speed:
    """A machine, and how fast it computes products.

    Attributes:
        machine: which.
        rates: measured on it.
    """

    machine: Machine
    rates: Rates

    @property
    def choice(self) -> Choice:
        """What computes there."""
        return choose(self.rates, self.machine.threads)

    @property
    def wide_rate(self) -> float:
        """GFLOP/s of one thread in float32."""
        return self.rates.mkl if self.choice.mkl else self.rates.onednn

    @property
    def rounded_rate(self) -> float:
        """GFLOP/s of one thread from bfloat16, by the faster way to hold it."""
        return max(self.rates.bfloat16, self.rates.widened)

    def in_words(self) -> str:
        """Name all that the last bits of products depend on."""
        library = "MKL" if self.choice.mkl else "oneDNN"
        threads = f"{self.choice.threads} thread{'s' if self.choice.threads > 1 else ''}"
        return f"{self.machine.processor}, products by {library}, {threads}"

    def as_json(self) -> dict[str, Any]:
        """Return it as `from_json` takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Speed:
        """Make one of `as_json`'s values.

        Args:
            values: as they were read.

        Returns:
            The speed.

        Raises:
            ValueError: they are no rates.
        """
        try:
            rates = dict(values["rates"])
            rates |= {name: {int(key): float(rate) for key, rate in rates[name].items()} for name in _BY_NUMBER}
            speed = cls(Machine(**values["machine"]), Rates(**rates))
            sound = speed.rates.are_sound()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it holds something else than rates ({error!r})") from error
        if not sound:
            raise ValueError("it holds numbers that are no rates")
        return speed


def find_speed(machine: Machine, measure: Callable[[], Rates]) -> Speed:
    """Return what was kept of a machine; measure it first where nothing is there, or nothing that can be read.

    Of several processes that ask at once one measures, while the others wait. Where nothing can be kept each process
    measures for itself.

    Args:
        machine: this one.
        measure: does it.

    Returns:
        Its speed.
    """
    try:
        folder = cache_folder(_KIND, warns=False)
    except OSError as error:  # not even a temporary one
        logger.info("What was measured of this machine cannot be kept: %s", error)
        return Speed(machine, measure())
    path = folder / f"{digest_of(*asdict(machine).values())}.json"
    speed = _read(path, machine)
    if speed is None:
        with only_one(path.with_suffix(".lock")):
            speed = _read(path, machine)
            if speed is None:
                speed = Speed(machine, measure())
                text = text_of(speed)
                written(path, lambda beside: beside.write_text(text, encoding="utf-8"))
    return speed


def speed_of(text: str) -> Speed:
    """Read what another process has measured, see `text_of`."""
    return Speed.from_json(json.loads(text))


def text_of(speed: Speed) -> str:
    """Write what was measured for other processes."""
    return json.dumps(speed.as_json())


def _read(path: Path, machine: Machine) -> Speed | None:
    try:
        values = read_json_object(path, missing_ok=True)
        speed = Speed.from_json(values) if values else None
    except (OSError, ValueError) as error:
        logger.info("%s cannot be read (%s); the machine is measured again.", path, error)
        return None
    return speed if speed is not None and speed.machine == machine else None
