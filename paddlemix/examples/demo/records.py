"""Questions and answers about a scene, as the records that users bring: chatml grounding, captions, VQA."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from paddlemix.examples.demo.scene import SIDE, Bounds, Scene, Shape, Vocabulary, draw_scene

Record = dict[str, Any]

NUMBER_WORDS = {1: "one", 2: "two", 3: "three"}
FIND_ONE = ("Find the {}.", "Where is the {}?", "Locate the {}.")
FIND_SEVERAL = ("Find all {}.", "Where are the {}?", "Locate all {}.")
FIND_EVERYTHING = ("Find every shape.", "Where is every shape?", "Locate all shapes.")
NOTHING_FOUND = "There is none."
ASK_COLOR = ("What color is the {}?", "Which color does the {} have?", "Name the color of the {}.")
ASK_KIND = ("What shape is the {} one?", "Which shape is {}?", "Name the {} shape.")
ASK_COUNT = ("How many shapes are there?", "How many shapes do you see?", "Count the shapes.")
ASK_EXISTS = ("Is there {}?", "Do you see {}?", "Does the picture show {}?")
ASK_SIDE = ("Which shape is on the {}?", "What shape is on the {} side?", "Name the shape on the {}.")
ASK_PLACE = ("In which part is the {}?", "Which part holds the {}?", "Name the part with the {}.")
DESCRIBE = "Describe this picture."
CHAT_TURNS = 6
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
# A shape whose center lies nearer than this share of the side to the border of two parts is not asked for its part.
CLEAR_OF_BORDERS = 0.04

# Shares of the questions that stand alone in held-out records.
SINGLE_TURN_WEIGHTS = {"single": 0.65, "partial": 0.15, "several": 0.10, "none": 0.10}

# Chances of the questions of one scene against one another. Twins are rare: almost never leave them out.
DIALOGUE_WEIGHTS = {"single": 1.0, "partial": 0.2, "several": 50.0, "none": 0.35, "dense": 1.0}


@dataclass(frozen=True)
class Question:
    """A question and the one right answer.

    Attributes:
        kind: what sort of question, such as "single" or "none".
        text: what the user asks.
        answer: what the assistant says.
    """

    kind: str
    text: str
    answer: str


def box_text(bounds: Bounds) -> str:
    """Write bounds in pixels as a tagged box in thousandths of the image, `<box>(x1,y1),(x2,y2)</box>`, each 0..999."""
    x1, y1, x2, y2 = (min(max(round(value / SIDE * 1000), 0), 999) for value in bounds)
    return f"<box>({x1},{y1}),({x2},{y2})</box>"


def plural(name: str) -> str:
    """Form the plural of a shape's name."""
    return name + ("es" if name.endswith("s") else "s")


def with_article(name: str) -> str:
    """Put "a" or "an" before a name."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def caption_of(scene: Scene) -> str:
    """Write a sentence that names the shapes from left to right, and the ground."""
    parts = [
        f"{NUMBER_WORDS[count]} {plural(' '.join(label))}" if count > 1 else with_article(" ".join(label))
        for label, count in scene.label_counts.items()
    ]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"{listed[0].upper()}{listed[1:]} on {with_article(scene.tint)} {scene.texture} ground."


def grounding_questions(scene: Scene, vocabulary: Vocabulary, rng: random.Random) -> list[Question]:
    """List all that can be asked about places in a scene, each question in one phrasing.

    Args:
        scene: the scene.
        vocabulary: where names of absent shapes come from.
        rng: chooses phrasings and absent names.

    Returns:
        Questions of the kinds "single" (one shape by its full name), "partial" (one shape by colour or by kind
        alone, where that is clear), "several" (shapes with the same name), "none" (absent) and "dense" (all shapes).
    """
    return [
        *(_find_one("single", shape.name, shape, rng) for shape in _unique_shapes(scene)),
        *(_find_one("partial", name, shape, rng) for name, shape in _partial_names(scene)),
        *_find_twins(scene, rng),
        Question("none", rng.choice(FIND_ONE).format(_absent_name(scene, vocabulary, rng)), NOTHING_FOUND),
        Question("dense", rng.choice(FIND_EVERYTHING), "".join(_tagged(s.name, [s]) for s in scene.shapes)),
    ]


def draw_single_turn(vocabulary: Vocabulary, rng: random.Random) -> tuple[Scene, Question]:
    """Draw a question that stands alone, its kind by `SINGLE_TURN_WEIGHTS`, and a scene in which it can be asked."""
    has_twins = len(vocabulary.counts) > 1
    weights = {kind: weight for kind, weight in SINGLE_TURN_WEIGHTS.items() if kind != "several" or has_twins}
    kind = rng.choices(tuple(weights), tuple(weights.values()))[0]
    while True:
        scene = draw_scene(vocabulary, rng)
        fitting = [question for question in grounding_questions(scene, vocabulary, rng) if question.kind == kind]
        if fitting:
            return scene, rng.choice(fitting)


def choose_dialogue(questions: list[Question], rng: random.Random) -> list[Question]:
    """Choose two to four of a scene's questions in random order, the likelier the larger their `DIALOGUE_WEIGHTS`."""
    # Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: the largest u ** (1 / weight) win.
    keys = {question: rng.random() ** (1 / DIALOGUE_WEIGHTS[question.kind]) for question in questions}
    chosen = sorted(questions, key=keys.__getitem__, reverse=True)[: rng.randint(2, 4)]
    rng.shuffle(chosen)
    return chosen


def vqa_questions(scene: Scene, vocabulary: Vocabulary, rng: random.Random) -> list[Question]:
    """List all that can be asked with a one-word answer, each question in one phrasing.

    Args:
        scene: the scene.
        vocabulary: where names of absent shapes come from.
        rng: chooses phrasings, absent names, and yes or no.

    Returns:
        Questions of the kinds "color", "kind", "count", "exists" (yes or no, even odds), "side" and "place" (which of
        nine parts of the image).
    """
    kinds, colors = _kind_counts(scene), _color_counts(scene)
    return [
        *(Question("color", rng.choice(ASK_COLOR).format(s.kind), s.color) for s in scene.shapes if kinds[s.kind] == 1),
        *(Question("kind", rng.choice(ASK_KIND).format(s.color), s.kind) for s in scene.shapes if colors[s.color] == 1),
        Question("count", rng.choice(ASK_COUNT), NUMBER_WORDS[len(scene.shapes)]),
        _ask_exists(scene, vocabulary, rng),
        *(Question("side", rng.choice(ASK_SIDE).format(side), shape.kind) for side, shape in _sides(scene)),
        *(Question("place", rng.choice(ASK_PLACE).format(shape.name), place) for shape, place in _places(scene)),
    ]


def chat_questions(scene: Scene, vocabulary: Vocabulary, rng: random.Random) -> list[Question]:
    """List all that can be asked without boxes: `vqa_questions`, and for a caption."""
    return [*vqa_questions(scene, vocabulary, rng), Question("caption", DESCRIBE, caption_of(scene))]


def choose_chat(questions: list[Question], rng: random.Random) -> list[Question]:
    """Choose up to `CHAT_TURNS` of a scene's `chat_questions` in random order, that for a caption always among them."""
    *short, caption = questions
    chosen = [*rng.sample(short, min(CHAT_TURNS - 1, len(short))), caption]
    rng.shuffle(chosen)
    return chosen


def choose_evenly(questions: Iterable[Question], rng: random.Random) -> Question:
    """Choose one question; first its kind is drawn, so that kinds with many questions do not crowd out the others."""
    by_kind: dict[str, list[Question]] = {}
    for question in questions:
        by_kind.setdefault(question.kind, []).append(question)
    return rng.choice(by_kind[rng.choice(sorted(by_kind))])


def chatml_record(record_id: str, image: str, questions: list[Question]) -> Record:
    """Make a chatml record with the image in its first turn."""
    turns = []
    for number, question in enumerate(questions):
        shown = f"<img>{image}</img>\n" if number == 0 else ""
        turns += [{"from": "user", "value": shown + question.text}, {"from": "assistant", "value": question.answer}]
    return {"id": record_id, "conversations": turns}


def caption_record(image: str, scene: Scene) -> Record:
    """Make a caption record."""
    return {"image": image, "caption": caption_of(scene)}


def vqa_record(image: str, question: Question) -> Record:
    """Make a VQA record."""
    return {"image": image, "question": question.text, "answer": question.answer}


def _tagged(name: str, shapes: Iterable[Shape]) -> str:
    return f"<ref>{name}</ref>" + "".join(box_text(shape.bounds) for shape in shapes)


def _find_one(kind: str, name: str, shape: Shape, rng: random.Random) -> Question:
    return Question(kind, rng.choice(FIND_ONE).format(name), _tagged(name, [shape]))


def _find_twins(scene: Scene, rng: random.Random) -> Iterable[Question]:
    for label, count in scene.label_counts.items():
        if count > 1:
            name = plural(" ".join(label))
            twins = (shape for shape in scene.shapes if shape.label == label)
            yield Question("several", rng.choice(FIND_SEVERAL).format(name), _tagged(name, twins))


def _kind_counts(scene: Scene) -> Counter[str]:
    return Counter(shape.kind for shape in scene.shapes)


def _color_counts(scene: Scene) -> Counter[str]:
    return Counter(shape.color for shape in scene.shapes)


def _unique_shapes(scene: Scene) -> list[Shape]:
    return [shape for shape in scene.shapes if scene.label_counts[shape.label] == 1]


def _partial_names(scene: Scene) -> Iterable[tuple[str, Shape]]:
    kinds, colors = _kind_counts(scene), _color_counts(scene)
    for shape in scene.shapes:
        if kinds[shape.kind] == 1:
            yield shape.kind, shape
        if colors[shape.color] == 1:
            yield f"{shape.color} shape", shape


def _absent_name(scene: Scene, vocabulary: Vocabulary, rng: random.Random) -> str:
    absent = [label for label in vocabulary.labels if label not in scene.label_counts]
    kinds, colors = _kind_counts(scene), _color_counts(scene)
    # Half of them share colour or kind with a shape in the image: a glance at one of the two must not suffice.
    similar = [(color, kind) for color, kind in absent if color in colors or kind in kinds]
    return " ".join(rng.choice(similar if rng.random() < 0.5 else absent))


def _ask_exists(scene: Scene, vocabulary: Vocabulary, rng: random.Random) -> Question:
    present = rng.random() < 0.5
    name = rng.choice(scene.shapes).name if present else _absent_name(scene, vocabulary, rng)
    return Question("exists", rng.choice(ASK_EXISTS).format(with_article(name)), "yes" if present else "no")


def _sides(scene: Scene) -> list[tuple[str, Shape]]:
    """Find the left and the right shape of two that stand clearly side by side."""
    if len(scene.shapes) != 2:
        return []
    left, right = scene.shapes
    return [("left", left), ("right", right)] if left.bounds[2] < right.bounds[0] else []


def _places(scene: Scene) -> Iterable[tuple[Shape, str]]:
    """Find each shape with a name of its own, and which ninth of the image its center clearly lies in."""
    for shape in _unique_shapes(scene):
        x1, y1, x2, y2 = shape.bounds
        thirds = [3 * (low + high) / (2 * SIDE) for low, high in ((y1, y2), (x1, x2))]
        if all(abs(third - border) >= 3 * CLEAR_OF_BORDERS for third in thirds for border in (1, 2)):
            yield shape, f"{ROWS[int(thirds[0])]} {COLUMNS[int(thirds[1])]}"
