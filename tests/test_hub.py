"""Names to folders, against a small server on this machine that answers as the hub does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from paddlemix.hub import is_hub_name, local_folder, wanted_files

TINY = Path(__file__).parent / "fixtures" / "qwen2_vl_tiny" / "tied"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PUBLISHED = [".gitattributes", "README.md", "config.json", "generation_config.json", "merges.txt", "vocab.json"]
PUBLISHED += ["tokenizer.json", "tokenizer_config.json", "model-00001-of-00002.safetensors", "onnx/config.json"]
PUBLISHED += [
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "training_args.bin",
]


class Hub(ThreadingHTTPServer):
    """A hub with models of one name; what it was asked is in `requests`."""

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.name, self.files = name, files
        self.requests: list[tuple[str, str, str | None]] = []
        self.token: str | None = None
        self.gated = False
        self.broken_after: int | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> list[str]:
        return [path.rsplit(f"{COMMIT}/")[1] for verb, path, _ in self.requests if verb == "GET" and COMMIT in path]


class Answer(BaseHTTPRequestHandler):
    """The few addresses that the hub's client asks for."""

    server: Hub

    def do_GET(self) -> None:
        self.server.requests.append(("GET", self.path, self.headers.get("Range")))
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.server.requests.append(("HEAD", self.path, None))
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        name, hub = self.server.name, self.server
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.respond(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif self.path.split("?")[0] in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
            listed = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in hub.files]}
            self.respond(200, {"Content-Type": "application/json"}, json.dumps(listed).encode())
        elif not self.path.startswith(f"/{name}/resolve/{COMMIT}/"):
            self.respond(404, {"X-Error-Code": "RepoNotFound"})
        elif hub.gated:
            self.respond(403, {"X-Error-Code": "GatedRepo"})
        else:
            self.send_file(hub.files[self.path.removeprefix(f"/{name}/resolve/{COMMIT}/")], with_body)

    def send_file(self, content: bytes, with_body: bool) -> None:
        headers = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.respond(206 if first else 200, headers, content[first:], with_body)

    def respond(self, status: int, headers: dict[str, str], body: bytes = b"", with_body: bool = True) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            breaks = self.server.broken_after is not None and len(body) > self.server.broken_after
            self.wfile.write(body[: self.server.broken_after] if breaks else body)

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {file.name: file.read_bytes() for file in TINY.glob("*") if file.suffix in (".json", ".safetensors")}
    assert sorted(files) == ["config.json", "model.safetensors"]
    server = Hub("Qwen/Tiny", {**files, "README.md": b"about", "pytorch_model.bin": b"the same numbers"})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(hub, tmp_path):
    """Resolve a name in a process of its own: the hub's client reads its environment once."""

    def run(name="Qwen/Tiny", weights=True, **variables):
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        code = (
            "from paddlemix.hub import local_folder\n"
            "from paddlemix.tools.report_errors import report_errors\n"
            f"with report_errors(): print(local_folder({name!r}, weights={weights}))"
        )
        command = [sys.executable, "-c", code]
        environment |= {key: value for key, value in variables.items() if value is not None}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return run


def folder_of(done: subprocess.CompletedProcess) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def sentence_of(done: subprocess.CompletedProcess) -> str:
    """The one line that a tool ends with."""
    assert done.returncode == 1 and done.stdout == "", done
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_a_model_of_the_hub_is_fetched_into_the_hubs_cache(ask, hub, tmp_path):
    folder = folder_of(ask())
    assert folder == tmp_path / "home" / "hub" / "models--Qwen--Tiny" / "snapshots" / COMMIT
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        name: (TINY / name).read_bytes() for name in ("config.json", "model.safetensors")
    }
    assert sorted(hub.fetched()) == ["config.json", "model.safetensors"]


def test_without_weights_only_the_small_files_are_fetched_and_then_only_the_weights(ask, hub):
    first = folder_of(ask(weights=False))
    assert hub.fetched() == ["config.json"]
    assert folder_of(ask()) == first
    assert hub.fetched() == ["config.json", "model.safetensors"]


def test_what_is_in_the_cache_is_not_fetched_again_and_needs_no_hub(ask, hub):
    folder = folder_of(ask())
    asked = len(hub.fetched())
    assert folder_of(ask()) == folder and len(hub.fetched()) == asked == 2
    hub.requests.clear()
    offline = ask(HF_HUB_OFFLINE="1")
    assert folder_of(offline) == folder and "taking" not in offline.stderr
    gone = ask(HF_ENDPOINT="http://127.0.0.1:9")
    assert folder_of(gone) == folder and "http://127.0.0.1:9 does not answer (ConnectionError); taking" in gone.stderr
    assert not hub.requests


def test_a_file_that_was_broken_off_is_gone_on_with(ask, hub):
    # The hub's client writes 10 MiB at once.
    shard = np.arange(3 << 20, dtype=np.uint32).tobytes()
    hub.files["model-00002-of-00002.safetensors"] = shard
    hub.broken_after = 11 << 20
    line = sentence_of(ask())
    assert f"fetching Qwen/Tiny from {hub.address} was broken off" in line and "Run it again: it goes on" in line
    hub.broken_after = None
    hub.requests.clear()
    folder = folder_of(ask())
    assert (folder / "model-00002-of-00002.safetensors").read_bytes() == shard
    fetched = [(path, first) for verb, path, first in hub.requests if verb == "GET" and "resolve" in path]
    assert fetched == [(f"/Qwen/Tiny/resolve/{COMMIT}/model-00002-of-00002.safetensors", f"bytes={10 << 20}-")]


def test_offline_with_nothing_cached_is_a_sentence_that_names_the_switch(ask, hub, tmp_path):
    line = sentence_of(ask(HF_HUB_OFFLINE="1"))
    assert f"the cache {tmp_path / 'home' / 'hub'} does not hold it" in line and "HF_HUB_OFFLINE" in line
    assert not hub.requests


def test_offline_with_the_small_files_alone_the_weights_are_missed(ask):
    folder_of(ask(weights=False))
    assert "holds it without its weights" in sentence_of(ask(HF_HUB_OFFLINE="1"))


def test_a_hub_that_is_not_there_is_a_sentence_that_names_mirror_and_folder(ask):
    line = sentence_of(ask(HF_ENDPOINT="http://127.0.0.1:9"))
    assert "http://127.0.0.1:9 cannot be reached" in line and "HF_ENDPOINT" in line and "local folder" in line


def test_a_cache_that_cannot_be_written_to_is_a_sentence_that_names_another_one(ask):
    line = sentence_of(ask(HF_HOME="/sys/paddlemix"))  # where nobody makes folders, not even root
    assert "the hub's cache /sys/paddlemix/hub cannot be written to" in line
    assert "Set HF_HOME to a folder where you may write; HF_HUB_OFFLINE=1" in line and "broken off" not in line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), "has no room for it (No space left on device). Make room there, or"),
        (OSError(122, "Disk quota exceeded"), "has no room for it (Disk quota exceeded)"),
        (RuntimeError("Data processing error: No space (os error 28)"), "has no room for it (No space left on device)"),
        (OSError(30, "Read-only file system", "/x"), "cannot be written to (Read-only file system). Set HF_HOME to a"),
        (RuntimeError("I/O error: Permission denied (os error 13)"), "cannot be written to (Permission denied)"),
        (TimeoutError(110, "Connection timed out"), "was broken off (Connection timed out). Run it again"),
        (RuntimeError("another bug"), "another bug"),
    ],
)
def test_what_stops_the_fetching_is_told_apart(monkeypatch, error, expected):
    def fail(*_, **__):
        raise error

    listed = type("Listed", (), {"siblings": []})
    monkeypatch.setattr("paddlemix.hub.HfApi", lambda: type("Api", (), {"model_info": lambda *_, **__: listed})())
    monkeypatch.setattr("paddlemix.hub.snapshot_download", fail)
    with pytest.raises((OSError, RuntimeError)) as caught:
        local_folder("Qwen/Never-kept", weights=True)
    assert expected in str(caught.value)


def test_an_unknown_model_is_a_sentence_that_says_so(ask, hub):
    line = sentence_of(ask("Qwen/Qwen3-VL-Nonesuch"))
    assert (
        f"`model_name_or_path` Qwen/Qwen3-VL-Nonesuch is no local folder, and {hub.address} shows no such model" in line
    )


def test_a_gated_model_is_a_sentence_that_says_where_its_terms_are(ask, hub):
    hub.gated = True
    line = sentence_of(ask())
    assert f"accept them at {hub.address}/Qwen/Tiny" in line and "HF_TOKEN" in line


def test_a_token_is_taken_from_the_environment_and_a_wrong_one_is_a_sentence(ask, hub):
    hub.token = "hf_right"
    assert (folder_of(ask(HF_TOKEN="hf_right")) / "config.json").is_file()
    hub.name = "Qwen/Other"
    line = sentence_of(ask("Qwen/Other", HF_TOKEN="hf_wrong"))
    assert "refuses the token (status 401)" in line and "HF_TOKEN" in line and "hf_wrong" not in line


@pytest.mark.parametrize(
    ("name", "published"),
    [("qwen-vl/qwen-vl-7b", "Qwen/Qwen-VL"), ("qwen-vl/qwen-vl-chat-7b", "Qwen/Qwen-VL-Chat")],
)
def test_a_name_of_paddlemix_is_fetched_under_the_hubs_name(ask, hub, name, published):
    hub.name = published
    hub.files["qwen.tiktoken"] = b"IQ== 0\n"
    folder = folder_of(ask(name))
    assert f"models--{published.replace('/', '--')}" in folder.parts
    assert sorted(hub.fetched()) == ["config.json", "model.safetensors", "qwen.tiktoken"]
    assert folder_of(ask(published)) == folder and len(hub.fetched()) == 3


def test_a_folder_called_as_in_paddlemix_wins_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("paddlemix.hub._from_hub", lambda *_: pytest.fail("the hub was asked"))
    (tmp_path / "qwen-vl" / "qwen-vl-7b").mkdir(parents=True)
    assert local_folder("qwen-vl/qwen-vl-7b") == Path("qwen-vl/qwen-vl-7b")


def test_a_folder_that_is_there_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TINY, tmp_path / "Qwen" / "Tiny")
    assert local_folder("Qwen/Tiny", weights=True) == Path("Qwen/Tiny")


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./a/b", "../b", "/nothing/there", "~/nothing", "a/b/", "a b/c"])
def test_what_looks_like_a_path_is_not_asked_for(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("paddlemix.hub._from_hub", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(FileNotFoundError, match="is no local folder, and no `owner/name`"):
        local_folder(name)


def test_a_path_object_is_never_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("Qwen/Tiny")
    with pytest.raises(FileNotFoundError, match="is no local folder"):
        local_folder(Path("Qwen/Tiny"))


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(NotADirectoryError, match=r"model\.safetensors is a file; give the folder"):
        local_folder(tmp_path / "model.safetensors")


def test_only_what_a_model_needs_is_wanted():
    small = sorted(name for name in PUBLISHED if name.endswith(".json") or name == "merges.txt")
    small.remove("onnx/config.json")
    assert sorted(wanted_files(PUBLISHED, weights=False)) == small and len(small) == 7
    shards = [name for name in PUBLISHED if name.endswith(".safetensors")]
    assert sorted(wanted_files(PUBLISHED, weights=True)) == sorted(small + shards)
    assert wanted_files(["qwen.tiktoken", "chat_template.jinja"], weights=True) == [
        "qwen.tiktoken",
        "chat_template.jinja",
    ]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["model.safetensors", "pytorch_model.bin", "model_state.pdparams"], ["model.safetensors"]),
        (["pytorch_model-00001-of-00002.bin", "optimizer.bin"], ["pytorch_model-00001-of-00002.bin"]),
        (["model_state.pdparams", "other.bin"], ["model_state.pdparams"]),
        (["original/model.safetensors", "model.gguf"], []),
    ],
)
def test_pickled_weights_are_wanted_only_where_there_are_no_safetensors(names, wanted):
    assert wanted_files(names, weights=True) == wanted
