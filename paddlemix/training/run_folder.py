"""A run's `output_dir` for as long as it is at work there: checked, alone in it, and what killed runs left is gone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from paddlemix.checkpoints.run_lock import only_run_in
from paddlemix.checkpoints.store import CheckpointStore
from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.output_dir import check_output_dir
from paddlemix.distributed.ranks import only_first

logger = logging.getLogger(__name__)


@contextmanager
def alone_in_output_dir(config: FinetuneConfig) -> Iterator[None]:
    """Hold the lock of `output_dir` while the block runs; the first rank does, whether it trains or only evaluates.

    Args:
        config: checked.

    Yields:
        Nothing, once the folder is this run's.

    Raises:
        OSError: another run is at work in the folder, or it cannot be made.
        ValueError: the run must not write into the folder; or, in the other ranks, whatever the first one raised.
    """
    with ExitStack() as stack:
        only_first(lambda: _take(config, stack))
        yield


def _take(config: FinetuneConfig, stack: ExitStack) -> None:
    check_output_dir(config)
    folder = Path(config.training["output_dir"]).expanduser()
    if not stack.enter_context(only_run_in(folder)):
        return
    check_output_dir(config)  # again: a run may have ended between the first look and the lock
    for path in CheckpointStore(folder).clear_leftovers():
        logger.info("%s, which a killed run has left half written, is deleted.", path)
