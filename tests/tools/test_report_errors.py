"""How a tool ends."""

from __future__ import annotations

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
