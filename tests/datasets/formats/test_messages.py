"""Lists of turns as other systems write them; what one of them writes, all names of the format read."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from paddlemix.conversation import (
    Box,
    Conversation,
    Image,
    ImageSettings,
    RecordId,
    Reference,
    Text,
    ToolCall,
    Turn,
    UnknownKeysError,
    Video,
    VideoSettings,
)
from paddlemix.datasets.formats import find_format
from paddlemix.datasets.formats.messages import parse
from paddlemix.datasets.reading.context import Reading, ReadOptions
from paddlemix.datasets.reading.keys import IMAGE_KEYS, VIDEO_KEYS

SOURCE, ROOT = RecordId("train.jsonl", 3), Path("root")
A, B = Image("root/a.jpg"), Image("root/b.jpg")
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(90)).decode()


def read(record: dict, **options) -> Conversation:
    return parse(record, Reading(SOURCE, ROOT, ReadOptions(**options)))


def said(question, answer="a", **keys) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **keys}]


def first(record: dict, **options) -> tuple:
    return read(record, **options).turns[0].parts


@pytest.mark.parametrize("name", ["openai", "trl", "ms_swift_3", "sharegpt", "llama_factory", "llava", "messages"])
def test_all_names_of_lists_of_turns_mean_the_same_format(name):
    assert find_format(name) is find_format("messages")


@pytest.mark.parametrize("key", IMAGE_KEYS)
@pytest.mark.parametrize("value", ["a.jpg", ["a.jpg"]])
def test_every_spelling_of_the_key_of_images_shows_them(key, value):
    assert first({"messages": said("q"), key: value}) == (A, Text("q"))


@pytest.mark.parametrize("key", VIDEO_KEYS)
def test_every_spelling_of_the_key_of_videos_shows_them(key):
    assert first({"messages": said("q"), key: "v.mp4"}) == (Video("root/v.mp4"), Text("q"))


def test_two_keys_of_images_are_refused_unless_they_agree(check_refused):
    assert first({"messages": said("q"), "image": "a.jpg", "img": "a.jpg"}) == (A, Text("q"))
    record = {"messages": said("q"), "image": "a.jpg", "img": "b.jpg"}
    check_refused(parse, record, "`image`, `img` mean the same; expected one of them")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.jpg"},
        {"type": "image", "path": "a.jpg"},
        {"type": "image", "url": "a.jpg"},
        {"type": "image_url", "image_url": "a.jpg"},
        {"type": "image_url", "image_url": {"url": "a.jpg", "detail": "high"}},
        {"type": "image_url", "value": "a.jpg"},
        {"type": "input_image", "image_url": "a.jpg"},
        {"type": "image", "source": {"type": "url", "url": "a.jpg"}},
        {"image": "a.jpg"},
        {"type": "image", "image": "a.jpg", "text": None, "video": None, "index": None},
        {"type": "image", "image": {"path": "a.jpg", "bytes": None}},
    ],
)
def test_an_image_is_read_from_every_spelling_of_a_part(part):
    assert first({"messages": said([part, {"type": "text", "text": "q"}])}) == (A, Text("q"))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "base64": PNG},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image", "image": PNG},
        {"type": "image", "image": {"bytes": base64.b64decode(PNG), "path": "a.png"}},
    ],
)
def test_bytes_of_an_image_become_a_data_url(part):
    (shown,) = first({"messages": said([part])})
    assert shown.path.startswith("data:image/") and shown.path.endswith(PNG)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "q"},
        {"text": "q"},
        "q",
        {"type": "input_text", "text": "q"},
        {"type": "text", "value": "q"},
    ],
)
def test_a_text_is_read_from_every_spelling_of_a_part(part):
    assert first({"messages": said([part])}) == (Text("q"),)


def test_parts_that_only_say_image_show_those_of_the_record_in_order():
    content = [
        {"type": "text", "text": "Compare "},
        {"type": "image"},
        {"type": "text", "text": " with "},
        {"type": "image"},
    ]
    record = {"messages": said(content), "images": ["a.jpg", "b.jpg"]}
    assert first(record) == (Text("Compare "), A, Text(" with "), B)


def test_an_image_has_settings_of_its_own():
    part = {"type": "image", "image": "a.jpg", "resized_height": 280, "resized_width": 420}
    assert first({"messages": said([part])}) == (Image("root/a.jpg", ImageSettings(None, None, 280, 420)),)
    record = {"messages": said("<image>q"), "images": ["a.jpg"], "chat_template_kwargs": {"max_pixels": 50176}}
    assert first(record)[0] == Image("root/a.jpg", ImageSettings(max_pixels=50176))
    record = {"messages": said("q"), "images": [{"path": "a.jpg", "min_pixels": 784}]}
    assert first(record)[0] == Image("root/a.jpg", ImageSettings(min_pixels=784))


def test_a_video_has_a_stretch_and_a_size_of_its_own():
    part = {
        "type": "video",
        "video": "v.mp4",
        "video_start": 0,
        "video_end": 2.5,
        "resized_height": 56,
        "resized_width": 84,
    }
    settings = VideoSettings(start=0, end=2.5, resized_height=56, resized_width=84)
    assert first({"messages": said([part])}) == (Video("root/v.mp4", settings),)
    part = {"type": "video", "video": ["1.jpg", "2.jpg"], "sample_fps": 1, "raw_fps": 30}
    assert first({"messages": said([part])}) == (Video(("root/1.jpg", "root/2.jpg"), VideoSettings(fps=1)),)


@pytest.mark.parametrize("value", [-1, 0, 2.5, True, "9", 1e13])
def test_a_setting_that_is_no_number_of_its_kind_is_refused(value, check_refused):
    part = {"type": "image", "image": "a.jpg", "max_pixels": value}
    check_refused(parse, {"messages": said([part])}, "`max_pixels` of `content[0]` of `messages[0]` is")


@pytest.mark.parametrize(
    ("keys", "weight"),
    [
        ({"loss": False}, 0.0),
        ({"loss": True}, 1.0),
        ({"loss": None}, None),
        ({"weight": 0}, 0.0),
        ({"loss_weight": 0.5}, 0.5),
        ({"loss_scale": 2.0}, 2.0),
        ({"train": False}, 0.0),
        ({"loss": False, "weight": 0}, 0.0),
        ({}, None),
    ],
)
@pytest.mark.parametrize("spelling", [("role", "content", "user", "assistant"), ("from", "value", "human", "gpt")])
def test_an_answer_says_how_much_of_it_is_learned(keys, weight, spelling):
    speaker, text, user, assistant = spelling
    turns = [{speaker: user, text: "q"}, {speaker: assistant, text: "a", **keys}]
    for name in ("messages", "chatml_dataset"):
        conversation = find_format(name).parse({"conversations": turns}, Reading(SOURCE, ROOT))
        assert conversation.turns[1].weight == weight


@pytest.mark.parametrize("value", [-1, "yes", [1], float("inf")])
def test_a_weight_that_is_none_is_refused(value, check_refused):
    check_refused(parse, {"messages": said("q", loss_scale=value)}, "`loss_scale` of `messages[1]` is")


def test_weights_that_disagree_are_refused(check_refused):
    check_refused(parse, {"messages": said("q", loss=True, weight=0)}, "`loss`, `weight` of `messages[1]` disagree")


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_beside_an_answer_is_refused_by_name(key, check_refused):
    check_refused(parse, {"messages": said("q", **{key: "I see."})}, f"`messages[].{key}` (reasoning before an answer")


@pytest.mark.parametrize("key", ["mask", "prefix", "foo"])
def test_an_unknown_key_of_a_turn_is_refused(key):
    with pytest.raises(UnknownKeysError) as caught:
        read({"messages": said("q", **{key: True})})
    assert caught.value.keys == (f"messages[].{key}",)


def test_unknown_keys_of_a_record_are_refused_together_unless_they_say_nothing():
    with pytest.raises(UnknownKeysError) as caught:
        read({"messages": said("q"), "id": 7, "foo": 1, "bar": "x", "baz": None, "empty": []})
    assert caught.value.keys == ("foo", "bar")


@pytest.mark.parametrize("key", ["image", "images", "img"])
def test_a_turn_shows_the_images_that_it_lists_itself(key):
    turns = [{"role": "user", "content": "q", key: ["a.jpg"]}, {"role": "assistant", "content": "a"}]
    assert first({"messages": turns}) == (A, Text("q"))
    turns[0]["content"] = "see <image> there"
    assert first({"messages": turns}) == (Text("see "), A, Text(" there"))


def test_the_system_text_of_either_key_is_the_system_turn():
    for key in ("system", "system_prompt"):
        assert read({"messages": said("q"), key: "s"}).turns[0] == Turn("system", (Text("s"),))


@pytest.mark.parametrize("key", ["messages", "conversations", "conversation"])
@pytest.mark.parametrize(
    "turns",
    [
        [["q", "a"]],
        [{"human": "q", "assistant": "a"}],
        [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        [{"role": "user", "value": "q"}, {"from": "assistant", "content": "a"}],
    ],
)
def test_turns_are_read_in_every_spelling(key, turns):
    assert read({key: turns}).turns == (Turn("user", (Text("q"),)), Turn("assistant", (Text("a"),)))


def test_image_stands_for_a_video_where_only_videos_are_listed():
    record = {"conversations": [["<image>\nWhat happens?", "a"]], "video": "v.mp4"}
    assert first(record) == (Video("root/v.mp4"), Text("\nWhat happens?"))


def test_images_given_by_their_placeholders_stand_where_these_do():
    record = {
        "messages": said("Compare <image_01> with <image_00>."),
        "image": {"<image_00>": "a.jpg", "<image_01>": "b.jpg"},
    }
    assert first(record) == (Text("Compare "), B, Text(" with "), A, Text("."))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<image1><image2>q", (A, B, Text("q"))),
        ("<image_2> or <image_1>", (B, Text(" or "), A)),
        ("<image_00> or <image_01>", (A, Text(" or "), B)),
        ("<Image>\n<Image>q", (A, Text("\n"), B, Text("q"))),
        ("<|image_1|> and <|image_2|>", (A, Text(" and "), B)),
        ("<|vision_start|><|image_pad|><|vision_end|>x<|image_pad|>", (A, Text("x"), B)),
        ("<image1> <image2> again <image1>", (A, Text(" "), B, Text(" again "), A)),
    ],
)
def test_other_spellings_of_a_placeholder_act_where_the_set_says_so(text, parts):
    record = {"messages": said(text), "images": ["a.jpg", "b.jpg"]}
    conversation = read(record, placeholders="any")
    assert conversation.turns[0].parts == parts and not conversation.notes
    told = read(record)
    assert told.turns[0].parts == (A, B, Text(text)) and 'set `placeholders` of the set to "any"' in told.notes[0]


def test_numbers_of_no_image_are_refused(check_refused):
    record = {"messages": said("<image1><image3>"), "images": ["a.jpg", "b.jpg"]}
    with pytest.raises(
        ValueError, match="the turns show <image1>, <image3>, but `images` lists 2; expected the numbers 1 to 2"
    ):
        read(record, placeholders="any")


@pytest.mark.parametrize("token", ["<|vision_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>"])
@pytest.mark.parametrize("role", [0, 1])
def test_control_tokens_in_texts_are_told(token, role):
    texts = ["q", "a"]
    texts[role] = f"x{token}y"
    conversation = read({"messages": said(*texts)})
    assert conversation.turns[role].parts == (Text(f"x{token}y"),)
    (note,) = conversation.notes
    assert note.startswith(f"`{token}` in a text stays text") and "allow_control_tokens" in note


def test_a_placeholder_in_an_answer_is_a_word():
    conversation = read({"messages": said("<image>Which tag?", "The <image> tag."), "images": ["a.jpg"]})
    assert conversation.turns[1].parts == (Text("The <image> tag."),) and not conversation.notes


def test_a_placeholder_behind_a_backslash_is_a_word():
    record = {"messages": said(r"<image>What does \<image> mean?", r"\<image> shows."), "images": ["a.jpg"]}
    assert read(record).turns == (
        Turn("user", (A, Text("What does <image> mean?"))),
        Turn("assistant", (Text("<image> shows."),)),
    )


@pytest.mark.parametrize(
    "answer",
    [
        "Paris<ref>Smith 2010</ref> is the capital.",
        "<annotation><object><ref>12</ref><box>10</box></object></annotation>",
        "The `<box>` tag, closed by `</box>`.",
        '<img src="a.png"><video src="b.mp4"></video><image href="c"/>',
    ],
)
@pytest.mark.parametrize("images", [[], ["a.jpg"]])
def test_text_that_only_looks_like_markup_stays_text(answer, images):
    conversation = read({"messages": said("q", answer), "images": images})
    assert conversation.turns[1].parts == (Text(answer),)


def test_markup_is_read_where_the_set_says_so_and_an_image_is_there():
    record = {"messages": said("q", "<ref>bus</ref><box>(1,2),(3,4)</box>"), "images": ["a.jpg"]}
    assert read(record, markup=True).turns[1].parts == (Reference("bus"), Box(1, 2, 3, 4, "thousandth"))
    left = read(record)
    assert left.turns[1].parts == (Text("<ref>bus</ref><box>(1,2),(3,4)</box>"),) and "set `markup`" in left.notes[0]
    alone = read({**record, "images": []}, markup=True)
    assert alone.turns[1].parts == (Text("<ref>bus</ref><box>(1,2),(3,4)</box>"),) and alone.notes


CALL = {"name": "zoom", "arguments": {"图": 1}}
TOOL = '{"type": "function", "function": {"name": "zoom"}}'
WRITTEN = ToolCall("zoom", '{"图": 1}')


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": "Let me look.", "tool_calls": [{"type": "function", "function": CALL}]},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [{"id": "1", "function": {**CALL, "arguments": '{"图":1}'}}],
        },
        {"role": "assistant", "content": "Let me look.", "function_call": CALL},
    ],
)
def test_calls_of_functions_are_read_in_every_spelling(turn):
    turns = [said("q")[0], turn, {"role": "tool", "content": "found"}, {"role": "assistant", "content": "It is red."}]
    conversation = read({"messages": turns, "tools": [{"name": "zoom"}]})
    assert conversation.turns[1] == Turn("assistant", (Text("Let me look."),), calls=(WRITTEN,))
    assert conversation.turns[2] == Turn("tool", (Text("found"),)) and conversation.tools == (TOOL,)


def test_calls_that_are_turns_of_their_own_are_one_turn():
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "zoom", "arguments": {"图": 1}}'},
        {"from": "function_call", "value": '{"name": "zoom", "arguments": {"图": 1}}'},
        {"from": "observation", "value": "one"},
        {"from": "observation", "value": "two"},
        {"from": "gpt", "value": "a"},
    ]
    conversation = read({"conversations": turns, "tools": '[{"name": "zoom"}]'})
    assert conversation.turns[1] == Turn("assistant", (), calls=(WRITTEN, WRITTEN))
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "tool", "tool", "assistant"]


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ({"role": "assistant", "content": None, "tool_calls": [{"function": {}}]}, "a call of `messages[1]` is"),
        ({"role": "assistant", "content": "a", "tool_calls": "zoom"}, "a call of `messages[1]` is"),
        ({"role": "assistant", "content": None, "tool_calls": [{**CALL, "arguments": "{"}]}, "which is no JSON"),
        ({"role": "function_call", "content": "zoom()"}, "which is no JSON"),
        ({"role": "user", "content": "a", "tool_calls": [CALL]}, "only an assistant may"),
    ],
)
def test_calls_that_are_none_are_refused(turn, problem, check_refused):
    check_refused(parse, {"messages": [said("q")[0], turn]}, problem)


def test_consecutive_turns_of_one_role_are_joined_where_the_set_says_so(check_refused):
    turns = [said("q")[0], *said("r"), {"role": "assistant", "content": "b"}]
    check_refused(parse, {"messages": turns}, "set `join_turns` of the set to true")
    assert read({"messages": turns}, join_turns=True).turns == (
        Turn("user", (Text("q"), Text("\n"), Text("r"))),
        Turn("assistant", (Text("a"), Text("\n"), Text("b"))),
    )


def test_columns_of_nothing_mean_that_nothing_is_there():
    record = {
        "messages": said("q", tool_calls=None, refusal=None),
        "images": None,
        "objects": None,
        "tools": [],
        "x": None,
    }
    assert read(record) == Conversation((Turn("user", (Text("q"),)), Turn("assistant", (Text("a"),))), SOURCE)


@pytest.mark.parametrize("key", ["image_id", "video_id"])
def test_a_record_that_names_an_image_and_shows_none_is_refused(key):
    with pytest.raises(UnknownKeysError) as caught:
        read({"messages": said("q"), key: "7"})
    assert caught.value.keys == (key,)
    assert first({"messages": said("q"), key: "7", "image": "a.jpg"}) == (A, Text("q"))


def test_settings_beside_an_address_and_in_its_object_are_read_together():
    part = {"type": "video_url", "video_url": {"url": "https://h/v.mp4", "max_pixels": 784}, "fps": 1}
    assert first({"messages": said([part])}) == (Video("https://h/v.mp4", VideoSettings(fps=1, max_pixels=784)),)
    part = {"type": "image_url", "image_url": {"url": "https://h/a.jpg", "detail": "high"}, "max_pixels": 784}
    assert first({"messages": said([part])}) == (Image("https://h/a.jpg", ImageSettings(max_pixels=784)),)


def test_boxes_lie_on_a_video_where_no_image_is_shown(check_refused):
    objects = {"ref": ["bus"], "bbox": [[1, 2, 3, 4]]}
    record = {"messages": said("<video>Find <ref-object>", "<bbox>"), "videos": ["v.mp4"], "objects": objects}
    assert read(record).turns[1].parts == (Box(1, 2, 3, 4, video=0),)
    tagged = {"messages": said("q", "<|box_start|>(1,2),(3,4)<|box_end|>"), "videos": ["v.mp4", "w.mp4"]}
    assert read(tagged).turns[1].parts == (Box(1, 2, 3, 4, "thousandth", video=1),)
    check_refused(parse, {**record, "objects": {**objects, "image_id": [1]}}, "of one of 1 videos")


def test_turns_as_a_table_keeps_them_are_read(check_refused):
    record = {"messages": '[{"role": "User", "content": "q"}, {"role": "ASSISTANT", "content": "a"}]'}
    assert read(record).turns == (Turn("user", (Text("q"),)), Turn("assistant", (Text("a"),)))
    check_refused(parse, {"messages": "[{]"}, "`messages` of the record is the text")
