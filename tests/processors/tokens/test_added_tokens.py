"""A checkpoint's own tokens: what its files say of them, and where they are read."""

import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from paddlemix.contract import NewToken
from paddlemix.conversation import Conversation, RecordId, Text, Turn
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.models.qwen2_vl.tokenizer import CONTROL_TOKENS, Qwen2Tokenizer
from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer
from paddlemix.names import IGNORED_LABEL
from paddlemix.processors import Qwen2VLProcessor

CASE = Path(__file__).parents[3].parent / "shared" / "cases" / "B03" / "model"
TEXTS = ["<loc_1>", "at <loc_1><loc_2>, <word> ", "a <word>b <left> <right> c", "x<alone>x <alone> x", "<loc_1 <loc_3>"]


@pytest.fixture
def saved(tokenizer, tmp_path) -> Path:
    """A checkpoint's folder, before it has tokens of its own."""
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def grown(saved) -> Path:
    """The folder of a checkpoint with tokens of its own, of every kind."""
    backend = Tokenizer.from_file(str(saved / "tokenizer.json"))
    backend.add_tokens(
        [
            AddedToken("<loc_1>", special=True),
            AddedToken("<loc_2>", special=True),
            AddedToken("<word>"),
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("<right>", rstrip=True, special=True),
            AddedToken("<alone>", single_word=True),
            AddedToken("<tool_call>", normalized=False),
        ]
    )
    backend.save(str(saved / "tokenizer.json"))
    return saved


def change(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def slow(folder: Path, added: dict[str, int] | None) -> Path:
    """Take a checkpoint's tokenizer.json apart into the files from before it."""
    values = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(values["model"]["vocab"]))
    merges = [one if isinstance(one, str) else " ".join(one) for one in values["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    (folder / "tokenizer.json").unlink()
    if added is not None:
        (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


def plain_ids(folder: Path, text: str) -> list[int]:
    """What the tokenizers library makes of a text that spells no control token."""
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids


def conversation(question: str, answer: str) -> Conversation:
    return Conversation((Turn("user", (Text(question),)), Turn("assistant", (Text(answer),))), RecordId("a test", 0))


def test_a_checkpoints_own_tokens_have_the_ids_that_the_library_gives_them(grown):
    tokenizer = Qwen2Tokenizer.from_pretrained(grown)
    assert [tokenizer.encode(text) for text in TEXTS] == [plain_ids(grown, text) for text in TEXTS]
    assert tokenizer.encode("<loc_2>") == [tokenizer.token_id("<loc_2>")]


def test_control_tokens_stay_text_beside_own_tokens_whatever_the_files_call_them(grown):
    values = json.loads((grown / "tokenizer.json").read_text())
    for one in values["added_tokens"]:
        one["special"] = not one["special"]
    (grown / "tokenizer.json").write_text(json.dumps(values))
    tokenizer = Qwen2Tokenizer.from_pretrained(grown)
    control = {tokenizer.token_id(token) for token in CONTROL_TOKENS}
    ids = tokenizer.encode("".join(CONTROL_TOKENS) + "<loc_1><word>")
    assert control.isdisjoint(ids)
    assert ids[-2:] == [tokenizer.token_id("<loc_1>"), tokenizer.token_id("<word>")]
    assert tokenizer.decode(sorted(control), skip_control_tokens=True) == ""


def test_own_tokens_are_read_in_questions_and_learned_in_answers(grown, make_processor, tmp_path):
    make_processor().save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(grown / name, tmp_path / "model" / name)
    processor = Qwen2VLProcessor.from_pretrained(tmp_path / "model")
    record = conversation("Where is <loc_1>?", "At <loc_2>, <word>.")
    sample = processor.encode(record)
    one, two, word = (processor.tokenizer.token_id(text) for text in ("<loc_1>", "<loc_2>", "<word>"))
    learned = sample.labels[sample.labels != IGNORED_LABEL].tolist()
    assert one in sample.input_ids and one not in learned and {two, word} <= set(learned)
    assert processor.measure(record).tokens == len(sample.input_ids)
    as_text = Qwen2VLProcessor.from_pretrained(tmp_path / "model", added_tokens="text")
    assert {one, two, word}.isdisjoint(as_text.encode(record).input_ids)
    assert as_text.measure(record).tokens == len(as_text.encode(record).input_ids) > len(sample.input_ids)
    assert as_text.fingerprint() != processor.fingerprint()
    with pytest.raises(ValueError, match="`added_tokens` is 'letters'; expected one of read, text"):
        Qwen2VLProcessor.from_pretrained(tmp_path / "model", added_tokens="letters")


def test_the_words_of_strangers_spell_no_own_token_but_tools_are_written_with_theirs(grown):
    tokenizer = Qwen2Tokenizer.from_pretrained(grown)
    tokenizer.choose_added_tokens("text")
    own = set(range(tokenizer.token_id("<loc_1>"), tokenizer.size)) - {tokenizer.token_id("<tool_call>")}
    for text in [*TEXTS, "".join(CONTROL_TOKENS)]:
        assert own.isdisjoint(tokenizer.encode(text)) and tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<tool_call>") == [tokenizer.token_id("<tool_call>")]
    assert own.isdisjoint(pickle.loads(pickle.dumps(tokenizer)).encode(TEXTS[1]))


def test_an_own_token_that_the_chat_template_writes_is_read_though_texts_spell_letters(grown, make_processor, tmp_path):
    template = Qwen2VLChatTemplate("{% for m in messages %}<loc_1>{{ m.content[0].text }}<|im_end|>{% endfor %}")
    make_processor(template=template).save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(grown / name, tmp_path / "model" / name)
    record = conversation("<loc_1>?", "<loc_1>.")
    for choice, count in (("read", 4), ("text", 2)):
        processor = Qwen2VLProcessor.from_pretrained(
            tmp_path / "model", added_tokens=choice, allow_control_tokens=choice == "text"
        )
        for one in (processor, pickle.loads(pickle.dumps(processor))):
            ids = one.encode(record).input_ids.tolist()
            assert ids.count(one.tokenizer.token_id("<loc_1>")) == count
            assert one.decode(ids) == "<loc_1><loc_1>?<|im_end|><loc_1><loc_1>.<|im_end|>"


def test_decoding_shows_own_tokens_and_skipping_drops_the_special_ones_only(grown):
    tokenizer = Qwen2Tokenizer.from_pretrained(grown)
    ids = tokenizer.encode("a<loc_1>b<word>c")
    assert tokenizer.decode(ids) == "a<loc_1>b<word>c"
    assert tokenizer.decode(ids, skip_control_tokens=True) == "ab<word>c"


@pytest.mark.parametrize("said", ["additional_special_tokens", "extra_special_tokens", "named", "map"])
def test_special_tokens_that_settings_alone_name_come_behind_all_others(saved, said):
    settings, before = saved / "tokenizer_config.json", Qwen2Tokenizer.from_pretrained(saved).size
    names = ["<loc_1>", {"content": "<loc_2>", "lstrip": True, "__type": "AddedToken"}]
    if said == "map":
        (saved / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": names}))
        change(settings, additional_special_tokens=None)
    elif said == "named":
        change(settings, extra_special_tokens={"loc_token": names[0], "other_token": names[1]})
    else:
        change(settings, **{said: names})
    tokenizer = Qwen2Tokenizer.from_pretrained(saved)
    assert [tokenizer.token_id(name) for name in ("<loc_1>", "<loc_2>")] == [before, before + 1]
    assert tokenizer.encode(" <loc_2>") == [before + 1] and tokenizer.size == before + 2
    assert tokenizer.decode([before, before + 1], skip_control_tokens=True) == ""


def test_tokens_of_the_decoder_in_the_settings_count_with_their_flags(saved):
    before = Qwen2Tokenizer.from_pretrained(saved).size
    flags = {"lstrip": False, "rstrip": True, "single_word": False, "normalized": False, "special": False}
    change(saved / "tokenizer_config.json", added_tokens_decoder={str(before): {"content": "<word>", **flags}})
    tokenizer = Qwen2Tokenizer.from_pretrained(saved)
    assert tokenizer.encode("<word>  ") == [before]
    assert tokenizer.decode([before], skip_control_tokens=True) == "<word>"


def test_a_vocabulary_from_before_tokenizer_json_takes_the_ids_of_its_added_tokens(saved):
    pieces = Qwen2Tokenizer.from_pretrained(saved).token_id(CONTROL_TOKENS[0])
    order = [*CONTROL_TOKENS[:3], "<loc_1>", "<word>", *CONTROL_TOKENS[3:]]
    slow(saved, {token: pieces + place for place, token in enumerate(order)})
    change(saved / "tokenizer_config.json", additional_special_tokens=[*CONTROL_TOKENS[1:], "<loc_1>"])
    tokenizer = Qwen2Tokenizer.from_pretrained(saved)
    assert [tokenizer.token_id(token) for token in order] == list(range(pieces, pieces + len(order)))
    assert tokenizer.encode("<word><loc_1>") == [pieces + 4, pieces + 3]
    assert tokenizer.decode([pieces + 3, pieces + 4], skip_control_tokens=True) == "<word>"


def test_files_that_give_one_id_to_two_tokens_are_refused_by_name(grown):
    tokenizer = Qwen2Tokenizer.from_pretrained(grown)
    taken = tokenizer.token_id("<loc_1>")
    (grown / "added_tokens.json").write_text(json.dumps({"<loc_1>": taken, "<other>": taken + 1}))
    with pytest.raises(
        ValueError, match=rf"added_tokens.json: the added token '<other>' has the id {taken + 1}, which"
    ):
        Qwen2Tokenizer.from_pretrained(grown)
    change(grown / "tokenizer_config.json", added_tokens_decoder={str(tokenizer.size + 1): {"content": "<other>"}})
    with pytest.raises(ValueError, match="tokenizer_config.json: the added token '<other>' .*without gaps"):
        Qwen2Tokenizer.from_pretrained(grown)
    change(grown / "tokenizer_config.json", added_tokens_decoder=None)
    (grown / "added_tokens.json").unlink()
    values = json.loads((grown / "tokenizer.json").read_text())
    values["added_tokens"][-1]["id"] = taken
    (grown / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"'<loc_1>' and '<tool_call>' have one id, {taken}"):
        Qwen2Tokenizer.from_pretrained(grown)


def test_a_control_token_that_is_missing_is_refused_by_name_although_settings_name_it(saved):
    values = json.loads((saved / "tokenizer.json").read_text())
    values["added_tokens"] = [one for one in values["added_tokens"] if one["content"] != "<|video_pad|>"]
    (saved / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"the control tokens <\|video_pad\|> are no added tokens"):
        Qwen2Tokenizer.from_pretrained(saved)


@pytest.mark.parametrize("fields", [{"special": True}, "<word>", None])
def test_an_added_token_that_is_none_is_refused_with_its_file(saved, fields):
    change(saved / "tokenizer_config.json", added_tokens_decoder={"x" if fields is None else "400": fields})
    with pytest.raises(ValueError, match="tokenizer_config.json: .* is no added token; expected `content`"):
        Qwen2Tokenizer.from_pretrained(saved)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "added_tokens.json"])
def test_a_damaged_file_of_tokens_is_named(saved, name):
    (saved / name).write_text('{"a": ')
    with pytest.raises(ValueError, match=str(saved / name)):
        Qwen2Tokenizer.from_pretrained(saved)


def test_a_vocabulary_gets_new_tokens_and_tells_the_pieces_of_their_texts(grown):
    tokenizer = Qwen2Tokenizer.from_pretrained(grown)
    before, pieces = tokenizer.size, tokenizer.encode("<new>")
    tokens = [NewToken("<new>"), NewToken("<loc_1>"), NewToken("<sep>", special=True)]
    added = tokenizer.add_tokens(tokens)
    assert list(added) == [before, tokenizer.token_id("<loc_1>"), before + 1] and tokenizer.size == before + 2
    assert added[before] == pieces and len(added[tokenizer.token_id("<loc_1>")]) > 1
    tokenizer.save_pretrained(grown)
    again = Qwen2Tokenizer.from_pretrained(grown)
    assert again.encode("<sep><new>") == [before + 1, before]
    assert again.decode([before, before + 1], skip_control_tokens=True) == "<new>"
    assert again.settings["additional_special_tokens"][-1] == "<sep>"


def test_a_tiktoken_vocabulary_names_what_to_write_in_place_of_new_tokens(qwen_tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"`new_tokens` lists <new>.*<\|extra_0\|>.*allow_control_tokens"):
        qwen_tokenizer.add_tokens([NewToken("<new>")])
    qwen_tokenizer.save_pretrained(tmp_path)
    known = {"<|im_end|>": qwen_tokenizer.im_end_id}
    (tmp_path / "added_tokens.json").write_text(json.dumps(known))
    assert QwenTokenizer.from_pretrained(tmp_path).size == qwen_tokenizer.size
    (tmp_path / "added_tokens.json").write_text(json.dumps({**known, "<new>": qwen_tokenizer.size}))
    with pytest.raises(ValueError, match="added_tokens.json: <new> cannot be added to qwen.tiktoken"):
        QwenTokenizer.from_pretrained(tmp_path)


def test_a_users_checkpoint_with_three_own_tokens_reads_each_as_one():
    if not CASE.is_dir():
        pytest.skip(f"the checkpoint is not at {CASE}")
    processor = Qwen2VLProcessor.from_pretrained(CASE)
    sample = processor.encode(conversation("Where? <loc_1> or <word>", "<loc_2><word>"))
    tokens = [processor.tokenizer.token_id(text) for text in ("<loc_1>", "<word>", "<loc_2>", "<word>")]
    assert [token for token in sample.input_ids if token > 506] == tokens == [507, 509, 508, 509]
    assert [token for token in sample.labels if token > 506] == tokens[2:]


IN_TRANSFORMERS = """
import json, sys
from transformers import AutoTokenizer
print(json.dumps([AutoTokenizer.from_pretrained(sys.argv[1])(text).input_ids for text in sys.argv[2:]]))
"""


@pytest.mark.parametrize("kind", ["fast", "named", "slow"])
def test_transformers_gives_the_same_ids(grown, kind):
    if "REFERENCE_PYTHON" not in os.environ:
        pytest.skip("REFERENCE_PYTHON names no Python with transformers")
    settings = grown / "tokenizer_config.json"
    if kind == "named":
        names = json.loads(settings.read_text())["additional_special_tokens"]
        change(settings, additional_special_tokens=[*names, "<later>", "<loc_3>"])
    if kind == "slow":
        values = json.loads((grown / "tokenizer.json").read_text())["added_tokens"]
        slow(grown, {one["content"]: one["id"] for one in values})
    command = [os.environ["REFERENCE_PYTHON"], "-c", IN_TRANSFORMERS, str(grown), *TEXTS]
    expected = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    tokenizer = Qwen2Tokenizer.from_pretrained(grown)
    assert [tokenizer.encode(text) for text in TEXTS] == expected


def with_settings(folder: Path, **values: object) -> Path:
    """Change a folder's tokenizer_config.json."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"added_tokens_decoder": [1]}, "`added_tokens_decoder` is \\[1\\]; expected an object"),
        ({"additional_special_tokens": ["<a>", 5]}, "`additional_special_tokens`: 5 is no added token"),
        (
            {"extra_special_tokens": {"a_token": {"lstrip": True}}},
            "`extra_special_tokens`: `content` is null",
        ),
    ],
)
def test_settings_that_name_no_tokens_are_refused_with_the_file(values, said, saved):
    with pytest.raises(ValueError, match=rf"tokenizer_config.json.*{said}"):
        Qwen2Tokenizer.from_pretrained(with_settings(saved, **values))


@pytest.mark.parametrize("extra", [{"a_token": "<a>", "b_token": None}, ["<a>", None], "<a>"])
def test_extra_special_tokens_are_read_in_each_form_and_a_null_names_none(extra, saved):
    before = Qwen2Tokenizer.from_pretrained(saved).size
    tokenizer = Qwen2Tokenizer.from_pretrained(with_settings(saved, extra_special_tokens=extra))
    assert tokenizer.encode("<a>") == [before] and tokenizer.size == before + 1
