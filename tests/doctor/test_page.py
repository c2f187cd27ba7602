"""The page: its marks, its status, what it does not show, and how long it takes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from paddlemix.doctor import __main__ as doctor
from paddlemix.doctor.finding import Finding, page

SUBJECTS = (
    *("Python", "packages", "Paddle", "card", "driver", "flash attention", "ops, CPU", "ops, images", "processor"),
    *("memory", "settings", "fonts", "images", "HEIC images", "videos", "disk", "temporary files", "shared memory"),
    *("cache", "hub", "hub's cache"),
)


def run(*words, **variables):
    environment = {**os.environ, **variables}
    command = [sys.executable, "-m", "paddlemix.doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_line_says_ok_or_what_to_do():
    text = page([Finding("a", "there"), Finding("b", "small", "Make it larger."), Finding("c", "gone", "Go.", True)])
    first, second, advice, third, *_ = text.splitlines()
    assert first.split() == ["ok", "a", "there"] and second.split() == ["see", "b", "small"]
    assert advice.strip() == "-> Make it larger." and third.split() == ["STOP", "c", "gone"]
    assert text.endswith("\n1 will stop a run (STOP), 1 can be better (see).")
    assert page([Finding("a", "there")]).endswith("\nAll is well.")


def test_a_long_line_is_wrapped_but_for_commands_and_none_acts_on_the_terminal():
    command = "pip install " + "a-package " * 20
    *found, advice = str(Finding("a", "word " * 60 + "\x1b[31mred", command)).splitlines()
    assert max(map(len, found)) <= 110 and "red" in found[-1] and "\x1b" not in "".join(found)
    assert advice.endswith(command)


def test_the_page_has_every_subject_and_takes_seconds(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(PADDLEMIX_CACHE=str(tmp_path))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Seconds of the process itself, 1.9 here: what other programs on the machine take does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 8
    lines = done.stdout.splitlines()
    assert done.returncode == any(line.startswith("STOP") for line in lines)
    missing = {one for one in SUBJECTS if not any(line[5:].startswith(one) for line in lines)}
    assert not missing and not done.stderr


def test_neither_tokens_nor_passwords_are_shown(tmp_path):
    secrets = {"HF_TOKEN": "hf_verysecret", "HF_ENDPOINT": "https://me:hunter2@mirror.example/hub?key=k3y"}
    done = run(**secrets, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert "mirror.example/hub, a token is set, offline" in done.stdout
    assert not any(secret in done.stdout + done.stderr for secret in ("verysecret", "hunter2", "k3y"))


def test_help_shows_an_example():
    done = run("--help")
    assert (
        done.returncode == 0 and "example:" in done.stdout and "python -m paddlemix.doctor > doctor.txt" in done.stdout
    )


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ([Finding("a", "there")], 0),
        ([Finding("a", "small", "Make it larger.")], 0),
        ([Finding("a", "there"), Finding("b", "gone", "Go.", stops=True)], 1),
    ],
)
def test_the_status_is_1_where_something_will_stop_a_run(monkeypatch, capsys, findings, status):
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert doctor.main([]) == status and findings[0].found in capsys.readouterr().out


def test_a_check_that_fails_is_a_line_and_the_others_are_made(monkeypatch):
    def fail():
        raise OSError("the drawer is stuck")

    monkeypatch.setattr("paddlemix.doctor.places.check_disk", fail)
    found = {one.subject: one for one in doctor.examine()}
    assert "OSError: the drawer is stuck" in found["disk"].found and found["disk"].mark == "see"
    assert "hub" in found and "Python" in found


def test_without_paddle_what_needs_none_is_looked_at(monkeypatch):
    monkeypatch.setattr(doctor, "paddle_loads", lambda: False)
    subjects = {one.subject for one in doctor.examine()}
    assert {"Python", "processor", "fonts", "disk", "hub"} <= subjects
    assert not {"card", "driver", "ops, CPU"} & subjects
