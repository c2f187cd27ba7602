"""The demo's multimodal set: boxes sit on the shapes, answers are true, output depends on the settings alone."""

from __future__ import annotations

import colorsys
import itertools
import json
import math
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddlemix.examples.demo import make_data as tool
from paddlemix.examples.demo import records, render
from paddlemix.examples.demo.make_data import Settings, make_data
from paddlemix.examples.demo.records import Question
from paddlemix.examples.demo.scene import (
    BASE_COLORS,
    BASE_KINDS,
    LARGEST,
    MARGIN,
    SIDE,
    SMALLEST,
    TWIN_SHARE,
    VOCABULARIES,
    Scene,
    Shape,
    draw_scene,
)

SMALL = Settings(set="new", train=40, eval=8, seed=3)
BOX = re.compile(r"<box>\((\d+),(\d+)\),\((\d+),(\d+)\)</box>")
BOTH_SETS = pytest.mark.parametrize("name", ["base", "new"])

RED_CIRCLE = Shape("circle", "red", (10.0, 20.0, 80.0, 90.0))
ORANGE_ARROW = Shape("arrow", "orange", (100.0, 100.0, 180.0, 170.0))
TWIN_CIRCLE = Shape("circle", "red", (120.0, 10.0, 190.0, 80.0))
BLUE_CROSS = Shape("cross", "blue", (20.0, 130.0, 90.0, 200.0))


def scene_of(*shapes: Shape) -> Scene:
    return Scene(shapes, "striped", "grey", grain=5)


def draw_scenes(name: str, count: int) -> list[Scene]:
    rng = random.Random(f"tests {name}")
    return [draw_scene(VOCABULARIES[name], rng) for _ in range(count)]


def ask_all(
    ask: Callable[..., list[Question]], kind: str, *, name: str = "new", count: int = 300
) -> list[tuple[Scene, Question]]:
    """The questions of one kind about many scenes; never an empty list."""
    rng = random.Random(1)
    asked = [(scene, q) for scene in draw_scenes(name, count) for q in ask(scene, VOCABULARIES[name], rng)]
    found = [(scene, question) for scene, question in asked if question.kind == kind]
    assert len(found) >= 20
    return found


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text)


def bounds_in(answer: str) -> list[tuple[float, ...]]:
    """The answer's boxes in pixels."""
    return [tuple(int(value) * SIDE / 1000 for value in box) for box in BOX.findall(answer)]


def answer_shows(answer: str, shapes: list[Shape]) -> bool:
    """Whether the answer's boxes are the shapes' bounds, in this order, to half a thousandth of the side (and 999)."""
    found = bounds_in(answer)
    return len(found) == len(shapes) and all(
        np.allclose(box, shape.bounds, atol=SIDE / 1000) for box, shape in zip(found, shapes, strict=True)
    )


def named_by(text: str, scene: Scene) -> list[Shape]:
    """The shapes that fit all colour and shape names in a text, read word by word, from left to right."""
    words = {word.removesuffix("es") if word == "crosses" else word.removesuffix("s") for word in words_of(text)}
    words |= set(words_of(text))
    kinds, colors = set(VOCABULARIES["new"].kinds) & words, set(VOCABULARIES["new"].colors) & words
    assert len(kinds) <= 1 and len(colors) <= 1 and kinds | colors
    fitting = [s for s in scene.shapes if s.kind in (kinds or {s.kind}) and s.color in (colors or {s.color})]
    return sorted(fitting, key=lambda shape: shape.bounds[0])


# Scenes


@BOTH_SETS
def test_shapes_stay_inside_the_image_within_their_sizes_and_apart(name: str) -> None:
    pairs = 0
    for scene in draw_scenes(name, 500):
        for number, shape in enumerate(scene.shapes):
            left, top, right, bottom = shape.bounds
            assert min(left, top, SIDE - right, SIDE - bottom) >= MARGIN - 1e-6
            assert all(SMALLEST - 1e-6 <= size <= LARGEST + 1e-6 for size in (right - left, bottom - top))
            for other in scene.shapes[:number]:
                pairs += 1
                left2, top2, right2, bottom2 = other.bounds
                assert right < left2 or right2 < left or bottom < top2 or bottom2 < top
    assert pairs > 100


@pytest.mark.parametrize("name", [name for name, vocabulary in VOCABULARIES.items() if vocabulary.step])
def test_bounds_of_a_set_with_a_step_are_its_multiples_and_many_of_them(name: str) -> None:
    corners = [value / SIDE for scene in draw_scenes(name, 300) for s in scene.shapes for value in s.bounds]
    steps = [value / VOCABULARIES[name].step for value in corners]
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert len(set(np.round(steps))) == 9


def test_the_base_set_knows_only_base_names_and_all_of_them() -> None:
    shapes = [shape for scene in draw_scenes("base", 500) for shape in scene.shapes]
    assert {shape.kind for shape in shapes} == set(BASE_KINDS)
    assert {shape.color for shape in shapes} == set(BASE_COLORS)


def test_every_image_of_the_new_set_shows_something_that_the_base_set_lacks() -> None:
    scenes = draw_scenes("new", 2000)
    for scene in scenes:
        assert any(shape.kind not in BASE_KINDS or shape.color not in BASE_COLORS for shape in scene.shapes)
    shapes = [shape for scene in scenes for shape in scene.shapes]
    assert {shape.label for shape in shapes} == set(VOCABULARIES["new"].labels)


@BOTH_SETS
def test_two_shapes_share_their_name_in_the_stated_share_of_scenes_and_three_never(name: str) -> None:
    repeats = Counter(max(scene.label_counts.values()) for scene in draw_scenes(name, 4000))
    assert set(repeats) == {1, 2}
    assert repeats[2] / 4000 == pytest.approx(TWIN_SHARE, abs=0.02)


# Images


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("kind", VOCABULARIES["new"].kinds)
def test_a_shape_is_drawn_up_to_its_bounds_and_not_beyond(kind: str, mirrored: bool) -> None:
    rng = random.Random(kind)
    for _ in range(20):
        left, top = rng.uniform(2, 100), rng.uniform(2, 100)
        shape = Shape(kind, "red", (left, top, left + rng.uniform(56, 112), top + rng.uniform(56, 112)), mirrored)
        rows, columns = np.nonzero(render.shape_cover(shape, (0, 0, SIDE, SIDE)))
        drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert drawn == pytest.approx(shape.bounds, abs=1.0)


def test_a_mirrored_arrow_points_the_other_way() -> None:
    frame = (0, 0, SIDE, SIDE)
    right = render.shape_cover(Shape("arrow", "red", (10.0, 10.0, 110.0, 110.0)), frame)
    left = render.shape_cover(Shape("arrow", "red", (10.0, 10.0, 110.0, 110.0), mirrored=True), frame)
    assert right[12:108, 60:108].sum() > right[12:108, 12:60].sum()
    # Half-covered pixels along slanted edges are rounded one way, so edges may differ.
    assert np.abs(left[10:110, 10:110] - right[10:110, 109:9:-1]).mean() < 0.01


@BOTH_SETS
def test_the_pixels_of_a_shape_are_nearest_to_the_colour_of_its_name(name: str) -> None:
    names, palette = list(render.COLOR_RGB), np.array(list(render.COLOR_RGB.values()))
    seen = set()
    for scene in draw_scenes(name, 60):
        pixels = np.asarray(render.render_scene(scene), np.float64)
        for shape in scene.shapes:
            inside = pixels[render.shape_cover(shape, (0, 0, SIDE, SIDE)) == 1].mean(axis=0)
            assert names[np.linalg.norm(palette - inside, axis=1).argmin()] == shape.color
            seen.add(shape.color)
    assert seen == set(VOCABULARIES[name].colors)


def test_colours_look_like_their_names_and_unlike_one_another() -> None:
    hues = {"red": 0, "orange": 30, "yellow": 55, "green": 130, "cyan": 185, "blue": 230, "purple": 285}
    for name, hue in hues.items():
        found, saturation, _ = colorsys.rgb_to_hsv(*(value / 255 for value in render.COLOR_RGB[name]))
        assert abs((found * 360 - hue + 180) % 360 - 180) < 10 and saturation > 0.7
    assert min(render.COLOR_RGB["white"]) > 235 and max(render.COLOR_RGB["black"]) < 30
    assert {*hues, "white", "black"} == set(render.COLOR_RGB) == set(VOCABULARIES["new"].colors)
    closest = min(math.dist(a, b) for a, b in itertools.combinations(render.COLOR_RGB.values(), 2))
    assert closest > 2 * math.sqrt(3) * render.COLOR_JITTER + 40


def test_pixels_outside_the_shapes_stay_muted() -> None:
    for scene in draw_scenes("new", 40):
        covered = sum(render.shape_cover(shape, (0, 0, SIDE, SIDE)) for shape in scene.shapes)
        ground = np.asarray(render.render_scene(scene), np.float64)[covered == 0]
        assert 90 < ground.mean() < 210
        assert np.ptp(ground.mean(axis=0)) < 70


def test_equal_scenes_give_equal_images_and_another_grain_another_one() -> None:
    scene = scene_of(RED_CIRCLE)
    again, other = scene_of(RED_CIRCLE), Scene(scene.shapes, scene.texture, scene.tint, grain=6)
    assert render.render_scene(scene).tobytes() == render.render_scene(again).tobytes()
    assert render.render_scene(scene).tobytes() != render.render_scene(other).tobytes()


# Grounding


def test_a_box_is_rounded_to_thousandths_and_never_reaches_1000() -> None:
    assert records.box_text((0.0, 22.4, 112.0, 224.0)) == "<box>(0,100),(500,999)</box>"


@pytest.mark.parametrize("kind", ["single", "partial"])
def test_a_question_for_one_shape_fits_one_shape_and_gets_its_box(kind: str) -> None:
    for scene, question in ask_all(records.grounding_questions, kind):
        fitting = named_by(question.text, scene)
        assert len(fitting) == 1
        assert answer_shows(question.answer, fitting)
        assert f"the {re.findall('<ref>(.*?)</ref>', question.answer)[0]}" in question.text


def test_a_question_for_several_shapes_gets_one_reference_and_all_boxes_from_left_to_right() -> None:
    for scene, question in ask_all(records.grounding_questions, "several"):
        fitting = named_by(question.text, scene)
        assert len(fitting) == 2
        assert answer_shows(question.answer, fitting)
        assert question.answer.count("<ref>") == 1


@BOTH_SETS
def test_a_question_with_the_answer_none_names_a_shape_that_is_not_there(name: str) -> None:
    similar = 0
    asked = ask_all(records.grounding_questions, "none", name=name)
    for scene, question in asked:
        assert question.answer == "There is none."
        assert named_by(question.text, scene) == []
        similar += any(shape.kind in question.text or shape.color in question.text for shape in scene.shapes)
    assert len(asked) / 3 < similar < len(asked)


def test_a_question_for_every_shape_gets_each_name_and_box_from_left_to_right() -> None:
    for scene, question in ask_all(records.grounding_questions, "dense"):
        ordered = sorted(scene.shapes, key=lambda shape: shape.bounds[0])
        assert answer_shows(question.answer, ordered)
        assert re.findall("<ref>(.*?)</ref>", question.answer) == [f"{s.color} {s.kind}" for s in ordered]


def test_every_kind_of_grounding_question_comes_in_three_phrasings() -> None:
    for kind in records.DIALOGUE_WEIGHTS:
        asked = ask_all(records.grounding_questions, kind)
        first_words = {question.text.split()[0] for _, question in asked}
        assert first_words == {"Find", "Where", "Locate"}


def test_a_dialogue_has_two_to_four_different_questions_and_asks_for_twins() -> None:
    rng, twins = random.Random(2), 0
    lengths: Counter[int] = Counter()
    for scene in draw_scenes("new", 300):
        questions = records.grounding_questions(scene, VOCABULARIES["new"], rng)
        chosen = records.choose_dialogue(questions, rng)
        assert len(set(chosen)) == len(chosen)
        lengths[len(chosen)] += 1
        if 2 in scene.label_counts.values():
            twins += 1
            assert "several" in {question.kind for question in chosen}
    assert set(lengths) == {2, 3, 4}
    assert twins > 10


def test_questions_that_stand_alone_follow_their_weights() -> None:
    rng = random.Random(3)
    drawn = [records.draw_single_turn(VOCABULARIES["new"], rng) for _ in range(1500)]
    counts = Counter(question.kind for _, question in drawn)
    assert set(counts) == set(records.SINGLE_TURN_WEIGHTS)
    for kind, weight in records.SINGLE_TURN_WEIGHTS.items():
        assert counts[kind] / 1500 == pytest.approx(weight, abs=0.04)


def test_only_the_first_turn_of_a_dialogue_shows_the_image() -> None:
    questions = [Question("single", "Find the ring.", "A"), Question("none", "Find the star.", "B")]
    record = records.chatml_record("r7", "pictures/a.jpg", questions)
    assert record == {
        "id": "r7",
        "conversations": [
            {"from": "user", "value": "<img>pictures/a.jpg</img>\nFind the ring."},
            {"from": "assistant", "value": "A"},
            {"from": "user", "value": "Find the star."},
            {"from": "assistant", "value": "B"},
        ],
    }


@BOTH_SETS
def test_every_coordinate_of_a_scene_has_three_digits(name: str) -> None:
    boxes = [BOX.fullmatch(records.box_text(s.bounds)) for scene in draw_scenes(name, 300) for s in scene.shapes]
    assert len(boxes) > 300
    assert all(len(coordinate) == 3 for box in boxes for coordinate in box.groups())


# Captions


@pytest.mark.parametrize(
    ("shapes", "caption"),
    [
        ((ORANGE_ARROW,), "An orange arrow on a grey striped ground."),
        ((RED_CIRCLE, ORANGE_ARROW), "A red circle and an orange arrow on a grey striped ground."),
        ((RED_CIRCLE, TWIN_CIRCLE), "Two red circles on a grey striped ground."),
        ((RED_CIRCLE, BLUE_CROSS, TWIN_CIRCLE), "Two red circles and a blue cross on a grey striped ground."),
        (
            (RED_CIRCLE, BLUE_CROSS, ORANGE_ARROW),
            "A red circle, a blue cross and an orange arrow on a grey striped ground.",
        ),
    ],
)
def test_a_caption_names_the_shapes_from_left_to_right(shapes: tuple[Shape, ...], caption: str) -> None:
    assert records.caption_of(scene_of(*shapes)) == caption


def test_the_plural_of_cross_is_crosses() -> None:
    assert [records.plural(name) for name in ("cross", "star")] == ["crosses", "stars"]


# VQA


def test_color_and_kind_questions_fit_one_shape_and_get_its_color_or_kind() -> None:
    for scene, question in ask_all(records.vqa_questions, "color"):
        assert [question.answer] == [shape.color for shape in named_by(question.text, scene)]
    for scene, question in ask_all(records.vqa_questions, "kind"):
        assert [question.answer] == [shape.kind for shape in named_by(question.text, scene)]


def test_count_questions_are_answered_in_words() -> None:
    answers = set()
    for scene, question in ask_all(records.vqa_questions, "count"):
        assert ["one", "two", "three"].index(question.answer) + 1 == len(scene.shapes)
        answers.add(question.answer)
    assert answers == {"one", "two", "three"}


@BOTH_SETS
def test_yes_and_no_are_true_and_equally_frequent(name: str) -> None:
    asked = ask_all(records.vqa_questions, "exists", name=name, count=2000)
    for scene, question in asked:
        assert (question.answer == "yes") == bool(named_by(question.text, scene))
    assert Counter(question.answer for _, question in asked)["yes"] / len(asked) == pytest.approx(0.5, abs=0.04)


def test_side_questions_are_asked_about_two_shapes_side_by_side_only() -> None:
    for scene, question in ask_all(records.vqa_questions, "side"):
        left, right = sorted(scene.shapes, key=lambda shape: shape.bounds[0])
        assert left.bounds[2] < right.bounds[0]
        side = next(word for word in words_of(question.text) if word in ("left", "right"))
        assert question.answer == {"left": left, "right": right}[side].kind


def test_place_questions_name_the_ninth_that_holds_the_center_and_avoid_the_borders() -> None:
    answers = set()
    for scene, question in ask_all(records.vqa_questions, "place"):
        [shape] = named_by(question.text, scene)
        row, column = question.answer.split()
        for low, high, words, word in (
            (shape.bounds[1], shape.bounds[3], ("top", "middle", "bottom"), row),
            (shape.bounds[0], shape.bounds[2], ("left", "center", "right"), column),
        ):
            center, third = (low + high) / 2, words.index(word)
            assert SIDE * third / 3 <= center <= SIDE * (third + 1) / 3
            assert all(abs(center - SIDE * border / 3) >= 0.039 * SIDE for border in (1, 2))
        answers.add(question.answer)
    assert len(answers) == 9


@BOTH_SETS
def test_a_chat_asks_once_for_a_caption_and_then_only_what_has_an_answer_without_boxes(name: str) -> None:
    lengths = set()
    for number in range(200):
        rng = random.Random(number)
        scene = draw_scene(VOCABULARIES[name], rng)
        chat = records.choose_chat(records.chat_questions(scene, VOCABULARIES[name], rng), rng)
        assert [q.answer for q in chat if q.kind == "caption"] == [records.caption_of(scene)]
        assert len({q.text for q in chat}) == len(chat) <= records.CHAT_TURNS
        assert not any("<box>" in q.answer for q in chat)
        lengths.add(len(chat))
    assert max(lengths) == records.CHAT_TURNS


def test_kinds_of_questions_are_chosen_evenly_however_many_questions_each_has() -> None:
    rng = random.Random(4)
    questions = [Question("color", str(number), "") for number in range(9)] + [Question("count", "", "")]
    counts = Counter(records.choose_evenly(questions, rng).kind for _ in range(1000))
    assert counts["count"] == pytest.approx(500, abs=60)


# The tool


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    make_data(folder, SMALL, workers=1)
    return folder


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_records(folder: Path, split: str) -> list[dict]:
    return [
        record
        for name in tool.RECORD_FILES
        if name.startswith(split)
        for record in json.loads((folder / name).read_text("utf-8"))
    ]


def image_of(record: dict) -> str:
    if "image" in record:
        return record["image"]
    return re.findall("<img>(.*?)</img>", record["conversations"][0]["value"])[0]


@pytest.mark.parametrize(("split", "count"), [("train", 40), ("eval", 8 + 8 + 2)])
def test_every_image_on_disk_has_one_record_and_every_record_its_image(made: Path, split: str, count: int) -> None:
    images = [image_of(record) for record in read_records(made, split)]
    assert len(images) == count
    assert sorted(images) == sorted(str(p.relative_to(made)) for p in (made / "pictures" / split).iterdir())
    for name in images:
        with Image.open(made / name) as image:
            assert (image.format, image.size) == ("JPEG", (SIDE, SIDE))


def test_the_single_set_asks_for_one_box_of_a_shape_that_stands_alone(tmp_path: Path) -> None:
    folder = tmp_path / "single"
    make_data(folder, Settings(set="single", train=60, eval=4, seed=3), workers=1)
    trained = json.loads((folder / "train_grounding.json").read_text("utf-8"))
    assert len(trained) == len(read_records(folder, "train")) == 60
    boxes = [len(BOX.findall(record["conversations"][1]["value"])) for record in trained]
    assert {len(record["conversations"]) for record in trained} == {2}
    assert set(boxes) == {0, 1} and sum(boxes) > 40


@pytest.mark.parametrize(
    ("lesson", "file", "kinds"),
    [
        ("dense", "train_grounding.json", {"dense"}),
        ("named", "train_grounding.json", {"single", "several", "none"}),
        ("where", "train_chat.json", {"place"}),
        ("tenths", "train_grounding.json", {"single", "partial", "several", "none"}),
    ],
)
def test_a_lesson_asks_for_nothing_but_what_it_teaches(lesson: str, file: str, kinds: set[str], tmp_path: Path) -> None:
    make_data(tmp_path / "data", Settings(set=lesson, train=60, eval=4, seed=3), workers=1)
    meta = json.loads((tmp_path / "data" / "meta.json").read_text("utf-8"))
    assert {name for name in meta["records"] if name.startswith("train")} == {file}
    assert meta["records"][file] == 60
    assert set(meta["questions"][file]) == kinds


def test_held_out_records_have_one_question_each_and_the_asked_numbers(made: Path) -> None:
    counts = {path.stem: len(json.loads(path.read_text("utf-8"))) for path in made.glob("eval_*.json")}
    assert counts == {"eval_grounding": 8, "eval_caption": 2, "eval_vqa": 8}
    grounding = json.loads((made / "eval_grounding.json").read_text("utf-8"))
    assert all(len(record["conversations"]) == 2 for record in grounding)


def test_no_held_out_image_is_trained_on(made: Path) -> None:
    pixels = {split: {p.read_bytes() for p in (made / "pictures" / split).iterdir()} for split in ("train", "eval")}
    assert len(pixels["train"]) == 40 and len(pixels["eval"]) == 18
    assert not pixels["train"] & pixels["eval"]


def test_the_number_of_workers_does_not_change_a_byte(made: Path, tmp_path: Path) -> None:
    make_data(tmp_path / "data", SMALL, workers=3)
    assert read_all(tmp_path / "data") == read_all(made)


def test_another_seed_gives_other_images_and_records(made: Path, tmp_path: Path) -> None:
    make_data(tmp_path / "data", Settings("new", 2, 1, seed=4), workers=1)
    other, first = read_all(tmp_path / "data"), read_all(made)
    for name in ("pictures/train/000000.jpg", "pictures/eval/000000.jpg", "eval_grounding.json"):
        assert other[name] != first[name]


def test_the_corpus_holds_every_answer_and_neither_tags_nor_paths(made: Path) -> None:
    corpus = (made / "corpus.txt").read_text("utf-8").splitlines()
    assert not [line for line in corpus if not line or "<" in line or "pictures/" in line or "train_" in line]
    for record in read_records(made, "train") + read_records(made, "eval"):
        if "image" in record:
            assert {value for key, value in record.items() if key != "image"} <= set(corpus)
        else:
            answer = record["conversations"][-1]["value"]
            assert set(re.split("</?ref>|</?box>", answer)) - {""} <= set(corpus)


def test_meta_json_counts_the_records_and_questions_of_each_file(made: Path) -> None:
    meta = json.loads((made / "meta.json").read_text("utf-8"))
    assert meta["settings"] == {"set": "new", "train": 40, "eval": 8, "seed": 3, "version": tool.VERSION}
    turns = 0
    for file, count in meta["records"].items():
        content = json.loads((made / file).read_text("utf-8"))
        assert len(content) == count
        turns += sum(len(record.get("conversations", "qa")) // 2 for record in content)
    assert sum(sum(kinds.values()) for kinds in meta["questions"].values()) == turns > 58


def test_the_same_set_is_kept_and_said_so(made: Path) -> None:
    inode = (made / "meta.json").stat().st_ino
    assert "reused" in make_data(made, SMALL, workers=1)
    assert (made / "meta.json").stat().st_ino == inode


def test_a_set_with_other_settings_is_replaced_only_when_asked(tmp_path: Path) -> None:
    output = tmp_path / "data"
    make_data(output, Settings("base", 2, 1, seed=0), workers=1)
    wanted = Settings("base", 3, 1, seed=0)
    with pytest.raises(ValueError, match="train is 2, asked for 3.*--overwrite"):
        make_data(output, wanted, workers=1)
    assert len(list((output / "pictures/train").iterdir())) == 2
    make_data(output, wanted, workers=1, overwrite=True)
    assert len(list((output / "pictures/train").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("file", ["thesis.txt", "meta.json"])
def test_a_folder_that_holds_something_else_is_never_touched(tmp_path: Path, file: str, overwrite: bool) -> None:
    (tmp_path / file).write_text("precious")
    with pytest.raises(ValueError, match="holds no set"):
        make_data(tmp_path, SMALL, workers=1, overwrite=overwrite)
    assert (tmp_path / file).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        assert list(tmp_path.rglob("*.jpg"))
        raise OSError("No space left on device")

    monkeypatch.setattr(tool, "write_corpus", fail)
    with pytest.raises(OSError, match="No space left"):
        make_data(tmp_path / "data", SMALL, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Runs the command in this process, and gives the process its own signal handler back."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["make_data.py", *arguments])
        tool.main()

    yield run
    signal.signal(signal.SIGTERM, before)


def test_a_refusal_ends_the_command_with_a_sentence(made: Path, run_main: Callable[..., None]) -> None:
    with pytest.raises(SystemExit, match="make_data: .*other settings"):
        run_main("--output_dir", str(made), "--train", "9")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, lambda: signal.raise_signal(signal.SIGTERM)])
def test_a_stopped_command_leaves_nothing_behind(
    stop: Callable[[], BaseException | None],
    tmp_path: Path,
    run_main: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop_it(*_: object) -> None:
        if error := stop():
            raise error

    monkeypatch.setattr(tool, "write_corpus", stop_it)
    with pytest.raises(SystemExit, match="make_data: (interrupted|ended from outside)"):
        run_main("--output_dir", str(tmp_path / "data"), "--train", "3", "--eval", "1", "--workers", "1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5"])
def test_a_number_of_images_below_one_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool.parse_arguments(["--output_dir", "x", "--train", value])
    assert "no whole number from 1 on" in capsys.readouterr().err
