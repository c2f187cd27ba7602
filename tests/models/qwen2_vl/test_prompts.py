"""The processor, called as the field calls it."""

from __future__ import annotations

import json

import numpy as np
import paddle
import PIL.Image
import pytest

from paddlemix.conversation import Conversation, Image, ImageSettings, RecordId, Text, Turn, Video
from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration
from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor

NAMES = ["input_ids", "pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"]


def question(*content):
    """The messages of one user's turn; strings are texts, dicts are as they are."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return [{"role": "user", "content": parts}]


def image_part(path):
    return {"type": "image", "image": path}


def prompt(processor, *content):
    return processor.apply_chat_template(question(*content), add_generation_prompt=True)


def sample_of(processor, *parts):
    turn = Turn("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))
    return processor.encode_prompt(Conversation((turn,), RecordId("records.json", 0)))


@pytest.fixture
def processor(make_processor):
    return make_processor()


@pytest.fixture
def frames(save_image):
    return [save_image(64, 56, f"frame_{index}.png") for index in range(4)]


def test_a_rendered_prompt_is_encoded_as_its_conversation_is(processor, save_image, frames):
    paths = [save_image(200, 100), save_image(90, 130)]
    words = ("Compare ", " with ", " and 一只猫", ".")
    text = prompt(
        processor, words[0], image_part(paths[0]), words[1], image_part(paths[1]), words[2], {"type": "video"}, words[3]
    )
    batch = processor(text=[text], images=paths, videos=[frames], return_tensors="np")
    video = Video(tuple(frames))
    wanted = sample_of(processor, words[0], Image(paths[0]), words[1], Image(paths[1]), words[2], video, words[3])
    assert sorted(batch) == sorted([*NAMES, "attention_mask"])
    assert len(set(map(tuple, wanted.media["image_grid_thw"].tolist()))) == 2
    np.testing.assert_array_equal(batch["input_ids"], wanted.input_ids[None])
    for name in NAMES[1:]:
        np.testing.assert_array_equal(batch[name], wanted.media[name])
        assert batch[name].dtype == wanted.media[name].dtype
    assert batch["attention_mask"].dtype == np.int64 and batch["attention_mask"].all()


def test_messages_with_images_have_the_ids_that_transformers_gives_them(processor_reference):
    stored = json.loads((processor_reference / "tokens.json").read_text("utf-8"))["prompt"]
    processor = Qwen2VLProcessor.from_pretrained(processor_reference)
    images = [str(processor_reference / name) for name in stored["pictures"]]
    assert len(images) > 1
    batch = processor(text=processor.apply_chat_template(stored["messages"]), images=images, return_tensors="np")
    assert batch["input_ids"].tolist() == [stored["input_ids"]]


def test_an_open_image_is_cut_as_its_file_is(processor, save_image):
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    path = save_image(200, 100, "turned.png", exif=turned)
    text = prompt(processor, image_part(path), "?")
    from_path = processor(text=text, images=path, return_tensors="np")
    with PIL.Image.open(path) as image:
        from_image = processor(text=text, images=image, return_tensors="np")
    _, height, width = from_path["image_grid_thw"][0]
    assert height > width
    for name in from_path:
        np.testing.assert_array_equal(from_path[name], from_image[name])


def test_an_image_too_narrow_is_refused_as_its_file_is(processor):
    with pytest.raises(ValueError, match="1 x 300; sides may differ"):
        processor(text=prompt(processor, image_part("")), images=[PIL.Image.new("RGB", (1, 300))])


@pytest.mark.parametrize("side", ["left", "right", None])
def test_a_batch_is_padded_on_the_side_asked_for_and_on_the_left_by_default(processor, save_image, side):
    path = save_image(100, 100)
    texts = [prompt(processor, "Hi."), prompt(processor, image_part(path), "What is this?")]
    batch = processor(text=texts, images=[path], padding_side=side, return_tensors="np")
    short, long = (processor(text=one, images=shown, return_tensors="np")["input_ids"][0]
                   for one, shown in zip(texts, ([], [path]), strict=True))  # fmt: skip
    spare = len(long) - len(short)
    assert spare > 5
    filler = [processor.tokenizer.pad_token_id] * spare
    wanted = [*short, *filler] if side == "right" else [*filler, *short]
    assert batch["input_ids"].tolist() == [wanted, long.tolist()]
    mask = [1] * len(short) + [0] * spare
    assert batch["attention_mask"].tolist() == [mask if side == "right" else mask[::-1], [1] * len(long)]


def test_the_tokenizers_setting_chooses_the_side(processor, monkeypatch):
    monkeypatch.setitem(processor.tokenizer.settings, "padding_side", "right")
    batch = processor(text=["a", "a b c"], return_tensors="np")
    assert batch["attention_mask"][0].tolist()[:: len(batch["attention_mask"][0]) - 1] == [1, 0]


def test_without_padding_texts_of_several_lengths_are_refused(processor):
    assert processor(text=["a", "b"], padding=False)["input_ids"].shape == [2, 1]
    with pytest.raises(ValueError, match="`padding` is False"):
        processor(text=["a", "1 2"], padding=False)


def test_tensors_hold_what_arrays_hold(processor, save_image):
    path = save_image(100, 100)
    text = prompt(processor, image_part(path), "?")
    tensors, arrays = processor(text=text, images=path), processor(text=text, images=path, return_tensors="np")
    assert list(tensors) == list(arrays) == ["input_ids", "attention_mask", "pixel_values", "image_grid_thw"]
    for name, tensor in tensors.items():
        assert isinstance(tensor, paddle.Tensor) and isinstance(arrays[name], np.ndarray)
        np.testing.assert_array_equal(tensor.numpy(), arrays[name])
    assert tensors.input_ids is tensors["input_ids"]
    with pytest.raises(AttributeError, match="no `video_grid_thw`; it has input_ids"):
        _ = tensors.video_grid_thw


@pytest.mark.parametrize("count", [0, 1, 3])
def test_placeholders_and_images_must_be_as_many(processor, save_image, count):
    texts = [prompt(processor, image_part("a")), prompt(processor, image_part("b"))]
    with pytest.raises(ValueError, match=rf"has 2 image placeholders .* has {count} images; expected one each"):
        processor(text=texts, images=[save_image(60, 60)] * count)


def test_placeholders_and_videos_must_be_as_many(processor, frames):
    with pytest.raises(ValueError, match="has 0 video placeholders .* has 1 videos; expected one each"):
        processor(text=prompt(processor, "Hi."), videos=[frames])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"text": None}, "`text` is empty"),
        ({"text": "a", "return_tensors": "pt"}, "`return_tensors` is 'pt'; expected one of pd, np"),
        ({"text": "a", "padding_side": "top"}, "`padding_side` is 'top'"),
        ({"text": "<|image_pad|>", "images": [3]}, "`images` holds a int; expected a path"),
        ({"text": "<|video_pad|>", "videos": [3]}, "`videos` holds a int; expected a path"),
        ({"text": "<|image_pad|>", "images": ["missing.png"]}, "image missing.png does not exist"),
    ],
)
def test_a_value_that_cannot_be_is_named(processor, call, message):
    with pytest.raises(ValueError, match=message):
        processor(**call)


def test_control_tokens_in_a_text_are_control_tokens(processor):
    ids = processor(text="<|im_end|>", return_tensors="np")["input_ids"]
    assert ids.tolist() == [[processor.tokenizer.token_id("<|im_end|>")]]


def test_messages_are_rendered_one_by_one_numbered_when_asked(processor):
    chat = [{"role": "user", "content": "Hi."}]
    text = processor.apply_chat_template(chat)
    assert text.endswith("<|im_start|>user\nHi.<|im_end|>\n")
    assert (
        processor.apply_chat_template([chat, chat], add_generation_prompt=True)
        == [text + "<|im_start|>assistant\n"] * 2
    )
    numbered = processor.apply_chat_template(question(image_part("a"), image_part("b")), add_vision_id=True)
    assert "Picture 2: <|vision_start|>" in numbered


def test_tokenized_messages_are_read_with_what_they_show(processor, save_image, frames):
    path = save_image(100, 100)
    keys = [{"type": "image", "path": path}, {"image": path}, {"type": "image_url", "image_url": {"url": path}}]
    chat = question(*keys, {"type": "video", "video": frames}, "?")
    options = {"tokenize": True, "add_generation_prompt": True, "return_tensors": "np"}
    batch = processor.apply_chat_template(chat, return_dict=True, **options)
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    wanted = processor(text=text, images=[path] * 3, videos=[frames], return_tensors="np")
    assert len(wanted["image_grid_thw"]) == 3 and list(batch) == list(wanted)
    for name in wanted:
        np.testing.assert_array_equal(batch[name], wanted[name])
    np.testing.assert_array_equal(processor.apply_chat_template(chat, **options), wanted["input_ids"])
    with pytest.raises(TypeError, match="got return_tensors, which goes with `tokenize=True` only"):
        processor.apply_chat_template(chat, return_tensors="np")


def test_rows_of_tensors_and_lists_are_decoded(processor):
    ids = processor(text=["猫<|im_end|>", "on the left"]).input_ids
    assert processor.batch_decode(ids, skip_special_tokens=True) == ["猫", "on the left"]
    assert processor.batch_decode(ids.tolist())[0].endswith("猫<|im_end|>")
    assert processor.decode(ids[1], skip_special_tokens=True) == "on the left"
    trimmed = [row[-1:] for row in ids]
    assert processor.batch_decode(trimmed, clean_up_tokenization_spaces=False)[0] == "<|im_end|>"
    with pytest.raises(ValueError, match="`clean_up_tokenization_spaces` is True"):
        processor.batch_decode(ids, clean_up_tokenization_spaces=True)


def test_the_way_from_messages_to_answers_is_the_fields(tiny_checkpoint, save_image):
    processor = Qwen2VLProcessor.from_pretrained(tiny_checkpoint)
    model = Qwen2VLForConditionalGeneration.from_pretrained(tiny_checkpoint)
    path = save_image(100, 80)
    texts = [prompt(processor, "Hello."), prompt(processor, image_part(path), "What colour is it?")]
    inputs = processor(text=texts, images=[path], padding=True, return_tensors="pd")
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    length = inputs.input_ids.shape[1]
    assert (inputs.attention_mask[0] == 0).any() and length < ids.shape[1] <= length + 6
    answers = processor.batch_decode(ids[:, length:], skip_special_tokens=True)
    alone = [
        model.generate(**processor(text=text, images=shown), max_new_tokens=6, do_sample=False)[0]
        for text, shown in zip(texts, ([], [path]), strict=True)
    ]
    lengths = [
        processor(text=text, images=shown).input_ids.shape[1] for text, shown in zip(texts, ([], [path]), strict=True)
    ]
    assert answers == [
        processor.decode(row[start:], skip_special_tokens=True) for row, start in zip(alone, lengths, strict=True)
    ]
    assert len(answers) == 2 and any(answers)


class TestSettingsOfParts:
    def test_settings_beside_an_image_act_on_it_alone(self, processor, save_image):
        path, opened = save_image(640, 480), PIL.Image.open(save_image(640, 480))
        parts = [{**image_part(path), "max_pixels": 100_352}, image_part(path)]
        parts.append({"type": "image", "image": opened, "resized_height": 280, "resized_width": 420})
        batch = processor.apply_chat_template(question(*parts), tokenize=True, return_dict=True, return_tensors="np")
        own = ImageSettings(max_pixels=100_352), ImageSettings(), ImageSettings(resized_height=280, resized_width=420)
        wanted = sample_of(processor, *(Image(path, settings) for settings in own)).media["image_grid_thw"]
        assert len(np.unique(wanted, axis=0)) == 3
        np.testing.assert_array_equal(batch["image_grid_thw"], wanted)

    def test_settings_beside_a_video_act_on_it_alone(self, processor, tmp_path):
        images = [PIL.Image.new("RGB", (64, 48), (12 * number, 0, 0)) for number in range(20)]
        images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100)
        part = {"type": "video", "video": str(tmp_path / "a.gif"), "max_pixels": 1568}
        asked = question({**part, "video_start": 0.5, "video_end": 1.5, "nframes": 6}, {**part, "fps": 1})
        batch = processor.apply_chat_template(asked, tokenize=True, return_dict=True, return_tensors="np")
        assert batch["video_grid_thw"][:, 0].tolist() == [3, 2]

    def test_settings_that_make_no_sense_are_refused(self, processor, save_image):
        asked = question({**image_part(save_image(64, 48)), "resized_height": 280})
        with pytest.raises(ValueError, match=r"image .*64x48\.png cannot be shown as asked: `resized_width` is None"):
            processor.apply_chat_template(asked, tokenize=True)
