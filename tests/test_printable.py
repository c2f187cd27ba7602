"""What strangers write reaches no terminal, log, error or page as a command."""

import json
import logging
import subprocess
import sys
from dataclasses import replace

import pytest

from paddlemix.conversation import (
    Conversation,
    Image,
    RawAnswer,
    RecordError,
    RecordId,
    Reference,
    Text,
    ToolCall,
    Turn,
    Video,
)  # fmt: skip
from paddlemix.datasets.loading.load import load_set
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.media.frames import VideoError
from paddlemix.media.images import ImageError, open_image
from paddlemix.media.video import open_video
from paddlemix.printable import brief, in_one_line, printable
from paddlemix.tools.predict import print_stream
from paddlemix.tools.report_errors import PrintableFormatter
from paddlemix.visualization.preview import RecordView, Stretch
from paddlemix.visualization.preview_page import SetView, preview_page

# Escape sequences that set a title, write to the clipboard, make a link, clear and colour; the same in C1; device
# control; characters that turn the direction of writing; other line ends; what is not seen; halves of characters.
COMMANDS = [
    "\x1b]0;owned\x07", "\x1b]52;c;cm0gLXJm\x07", "\x1b]8;;http://h\x1b\\", "\x1b[2J", "\x9b31m", "\x9d0;x\x9c",
    "\x90x", "\x07", "\x08", "\x7f", "\x00", "\x0b", "\x0c", "\r", "\x85", "\u2028", "\u2029", "\u202e", "\u2066",
    "\u2069", "\u200f", "\u061c", "\u200b", "\xad", "\ufeff", "\u2060", "\udcff", "\ud83d",
]  # fmt: skip
ALL = "".join(COMMANDS)


def is_harmless(text, allowed="\n\t"):
    return all(character.isprintable() or character in allowed for character in text)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_shown_by_its_number(command):
    assert is_harmless(printable(f"a{command}b\n\tc")) and printable(f"a{command}b\n\tc").endswith("b\n\tc")
    assert in_one_line(f"a{command}b\nc").isprintable() and printable(printable(command)) == printable(command)
    printable(command).encode()  # which halves of characters are not


def test_what_people_write_stays():
    text = 'naïve 图片 👩\u200d👩\u200d👧 ✈\ufe0f देवनागरी \u200c עברית العربية "\\n" \\ <box>\n\tâ€\xa0\u3000é'
    for character in set(text) - set("\n\t\u200c\u200d\xa0\u3000"):
        assert printable(character) == character
    assert printable(text) == text and in_one_line(text) == text.replace("\n", "\\n").replace("\t", "\\t")


def test_json_stays_json():
    value = {f"a{ALL}": [ALL.encode("utf-8", "surrogatepass").decode("utf-8", "ignore")]}
    assert json.loads(printable(json.dumps(value, ensure_ascii=False, indent=2))) == value


def test_an_answer_is_printed_without_commands_and_given_back_as_it_is(capsys):
    assert print_stream(iter(["a\n", ALL, "图"])) == f"a\n{ALL}图"
    out = capsys.readouterr().out
    assert is_harmless(out) and "a\n" in out and "图" in out


@pytest.mark.parametrize(
    "path", [f"/nowhere/{ALL}.png", f"/nowhere/a\nINFO: all is well{ALL}.mp4", f"http://10.0.0.1/{ALL}"]
)
def test_a_path_in_an_error_is_in_one_line(path):
    with pytest.raises(ImageError) as image_error:
        open_image(path)
    with pytest.raises(VideoError) as video_error, open_video(path):
        pass
    assert str(image_error.value).isprintable() and str(video_error.value).isprintable()


def test_a_broken_file_is_named_in_one_line(tmp_path):
    path = tmp_path / "a\x1b]0;x\x07\n\u202eb.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + b"x" * 100)
    with pytest.raises(VideoError) as error, open_video(str(path)):
        pass
    assert str(error.value).isprintable() and "\\u001b]0;x" in str(error.value)


def test_a_record_error_is_printable_and_crosses_processes():
    error = RecordError(RecordId(f"a{ALL}.jsonl", 1), f"`{ALL}` is none")
    kind, arguments = error.__reduce__()
    assert str(error).isprintable() and str(kind(*arguments)) == str(error)


def test_records_reach_the_log_and_the_errors_of_a_set_without_commands(tmp_path, make_processor, caplog):
    answer = {"role": "assistant", "content": "a"}
    records = [
        {"messages": [{"role": "user", "content": [{"type": "image", "image": f"{ALL}\n.png"}]}, answer]},
        {"messages": [{"role": "user", "content": [{"type": f"x{ALL}"}]}, answer]},
        {"messages": [{"role": f"{ALL}", "content": "q"}, answer]},
        {"messages": [{"role": "user", "content": "q", f"key\n{ALL}": 1}, answer]},
        {"messages": [{"role": "user", "content": f"q{ALL}"}, answer]},
    ]
    path = tmp_path / "a\u202e\x1b[2Jb.jsonl"
    # orjson reads no halves of characters.
    path.write_text("\n".join(json.dumps(one).replace("\\ud83d", "").replace("\\udcff", "") for one in records))
    with caplog.at_level(logging.INFO):
        loaded = load_set(DatasetSpec(name="openai", data_files=str(path)), make_processor())
    assert len(loaded.errors) == 4
    assert all(str(error).isprintable() for error in loaded.errors)
    assert all(finding.text.isprintable() for finding in loaded.unknown_keys) and loaded.unknown_keys


def test_lines_of_a_tools_log_are_printable():
    record = logging.LogRecord("paddlemix", logging.WARNING, "", 0, "%s", (f"a{ALL}",), None)
    assert is_harmless(PrintableFormatter("%(levelname)s: %(message)s").format(record))


def test_an_error_that_ends_a_tool_is_printable():
    code = (
        "import logging\nfrom paddlemix.tools.report_errors import report_errors\n"
        "with report_errors():\n"
        "    logging.getLogger('paddlemix').warning('a\\x1b]0;x\\x07')\n"
        "    raise ValueError('b\\x1b[2J\\x9b\\u202e')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and is_harmless(done.stderr)
    assert "a\\u001b]0;x\\u0007" in done.stderr and "error: b\\u001b[2J\\u009b\\u202e" in done.stderr


def test_a_page_shows_commands_by_their_numbers():
    record = RecordView(f"t{ALL}", stretches=(Stretch(f"s\n{ALL}", 1.0, False, 1),), gold=ALL, answer=f"a{ALL}<b>")
    page = preview_page(ALL, [SetView(ALL, (record, RecordView(ALL, problem=ALL)))])
    assert is_harmless(page) and "s\n\\u001b]0;owned" in page and "&lt;b&gt;" in page


def test_conversations_keep_what_was_written():
    parts = (Image(f"{ALL}.png"), Video(f"{ALL}.mp4"), Text(ALL))
    assert Conversation((Turn("user", parts),), RecordId(ALL, 0)).turns[0].parts == parts
    assert RecordId(ALL, 0).file == ALL


WRITERS = [
    lambda half: Conversation((Turn("user", (Text(half),)), ANSWER), SOURCE),
    lambda half: Conversation((Turn("system", (Text(half),)), Turn("user", (Text("q"),)), ANSWER), SOURCE),
    lambda half: Conversation((Turn("user", (Text("q"),)), Turn("assistant", (Text(half),))), SOURCE),
    lambda half: Conversation((Turn("user", (Text("q"),)), Turn("assistant", (RawAnswer(half),))), SOURCE),
    lambda half: Conversation((Turn("user", (Text("q"),)), Turn("assistant", (Reference(half),))), SOURCE),
    lambda half: Conversation((Turn("user", (Text("q"),)), replace(ANSWER, calls=(ToolCall("f", half),))), SOURCE),
    lambda half: Conversation((Turn("user", (Text("q"),)), ANSWER), SOURCE, tools=(half,)),
]
ANSWER, SOURCE = Turn("assistant", (Text("a"),)), RecordId("r.jsonl", 3)


@pytest.mark.parametrize("half", ["\ud800", "图\udfffb"])
@pytest.mark.parametrize("write", WRITERS)
def test_half_of_a_character_that_a_program_gives_is_told_with_the_record(make_processor, write, half):
    processor = make_processor()
    for ask in (processor.measure, processor.encode, processor.encode_prompt):
        with pytest.raises(RecordError, match=r"r\.jsonl, record 3: .*\\ud(800|fff).* half of a surrogate pair"):
            ask(write(half))
    good = Conversation((Turn("user", (Text("图 🚌"),)), ANSWER), SOURCE)
    sizes = processor.measure_many([good, write(half), good])
    assert isinstance(sizes[1], RecordError) and sizes[0] == sizes[2] == processor.measure(good)


def test_an_error_that_quotes_megabytes_is_shortened(tmp_path, make_processor):
    record = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "k" * 2**20: 1}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record))
    loaded = load_set(DatasetSpec(name="openai", data_files=str(path)), make_processor())
    assert all(len(finding.text) <= 4000 for finding in loaded.unknown_keys) and loaded.unknown_keys
    error = RecordError(SOURCE, f"`{'k' * 2**20}\x1b`; correct the spelling")
    kind, arguments = error.__reduce__()
    assert error.problem.endswith("\\u001b`; correct the spelling") and len(error.problem) <= 4000
    assert "characters]" in error.problem and str(kind(*arguments)) == str(error)


def test_a_name_is_written_on_one_short_line():
    assert brief("model.layers.0") == "model.layers.0" and brief("图") == "图"
    assert brief("a\n\x1b[31m\u202e") == r"a\n\u001b[31m\u202e"
    assert len(brief("a" * 10**6)) == 80 and brief("a" * 81).endswith("a...") and brief("a" * 80) == "a" * 80
    assert len(brief("\x1b" * 80)) == 80
