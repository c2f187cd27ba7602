"""Prints one page on what will run on this machine, and what to do where it will not; bug reports begin with it.

Each line says `ok`, `see` where something can be better, or `STOP` where a run will end for it, and then what to do.
Nothing is downloaded, no token is shown, and it takes a few seconds. The status is 1 where a line says STOP, else 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module

from paddlemix.doctor.finding import Finding, page
from paddlemix.doctor.installed import paddle_loads

EXAMPLE = """example:
  python -m paddlemix.doctor                        the page
  python -m paddlemix.doctor > doctor.txt           for a bug report
  python -m paddlemix.doctor && python paddlemix/tools/supervised_finetune.py config.json
"""
# A module, and its functions in the order of the page.
CHECKS = {
    "installed": ("check_python", "check_packages", "check_paddle"),
    "cards": ("check_cards", "check_driver", "check_flash_attention", "check_ranks"),
    "fused_ops": ("check_tensor_ops", "check_image_ops"),
    "processor": ("check_processor", "check_memory", "check_settings"),
    "media": ("check_fonts", "check_images", "check_videos"),
    "places": ("check_disk", "check_temporary", "check_shared_memory", "check_cache", "check_hub"),
}
NEED_PADDLE = ("cards", "fused_ops")


def main(arguments: list[str]) -> int:
    """Print the page.

    Args:
        arguments: the command line without the program's name.

    Returns:
        1 where something will stop a run, else 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m paddlemix.doctor",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    findings = examine()
    print(page(findings))
    return int(any(one.stops for one in findings))


def examine() -> list[Finding]:
    """Make all checks; what needs Paddle is left out where it cannot be imported.

    Returns:
        What they found, in the order of the page.
    """
    loads = paddle_loads()
    modules = {name: names for name, names in CHECKS.items() if loads or name not in NEED_PADDLE}
    return [finding for module, names in modules.items() for name in names for finding in _findings(module, name)]


def _findings(module: str, name: str) -> list[Finding]:
    """Make one check; where it fails itself, the page goes on and says so."""
    try:
        check: Callable[[], Finding | list[Finding]] = getattr(import_module(f"paddlemix.doctor.{module}"), name)
        found = check()
    except Exception as error:  # whatever is broken here is what the page is for
        subject = name.removeprefix("check_").replace("_", " ")
        return [Finding(subject, f"could not be looked at: {type(error).__name__}: {error}", "Report this line.")]
    return [found] if isinstance(found, Finding) else found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
