"""The short form of fuzz_media.py, and that it finds what it looks for."""

import mmap
from importlib.util import find_spec

import pytest

from paddlemix.media.images import ImageError

from .fuzz_media import Fuzzer

pytestmark = pytest.mark.skipif(not find_spec("av"), reason="PyAV is not installed: it writes the videos to mutate")


def test_mutated_files_are_accepted_or_refused_by_a_sentence(tmp_path):
    fuzzer = Fuzzer(7, tmp_path)
    fuzzer.run(500)
    assert fuzzer.failures == []
    assert fuzzer.outcomes["accepted"] > 50 and fuzzer.outcomes["refused"] > 50
    assert len({key.split(" ")[-1] for key in fuzzer.outcomes}) > 12


def refuse_without_a_name(path, is_video):
    raise ImageError("it is broken.")


def stop(path, is_video):
    raise KeyError(path)


def grow(path, is_video):
    KEPT.append(mmap.mmap(-1, 40 << 20))  # not from the heap, which may have room from earlier tests
    KEPT[-1].write(b"x" * len(KEPT[-1]))


KEPT: list[mmap.mmap] = []


@pytest.mark.parametrize(
    ("look", "told"), [(refuse_without_a_name, "no sentence"), (stop, "escaped: KeyError"), (grow, "MB kept")]
)
def test_failures_are_found(tmp_path, look, told):
    fuzzer = Fuzzer(7, tmp_path, look=look)
    fuzzer.run(4)
    assert fuzzer.failures and told in fuzzer.failures[-1]
