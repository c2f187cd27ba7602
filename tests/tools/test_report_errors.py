"""How a tool ends."""

from __future__ import annotations

import paddle
import pytest

from paddlemix.tools.report_errors import STACK_VARIABLE, report_errors


def test_ctrl_c_ends_with_a_sentence_and_the_code_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, report_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("error: interrupted; ")


def test_who_asks_for_the_stack_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STACK_VARIABLE, "1")
    with pytest.raises(KeyboardInterrupt), report_errors():
        raise KeyboardInterrupt


def test_memory_that_is_not_there_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, report_errors():
        paddle.zeros([2**50])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is not enough memory.") and "4503599627370496" in line
