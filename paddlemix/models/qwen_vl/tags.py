"""Images, names and boxes as Qwen-VL writes them inside text, and the list form in which users put them together.

Picture 1: <img>bus.jpg</img>
<ref>the bus</ref><box>(178,279),(806,884)</box>
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paddlemix.processors.grounding import TaggedPlaces

IMG, IMG_END, IMG_PAD = "<img>", "</img>", "<imgpad>"
REF, REF_END, BOX, BOX_END = "<ref>", "</ref>", "<box>", "</box>"
QUAD, QUAD_END = "<quad>", "</quad>"
GROUNDING_TAGS = (REF, REF_END, BOX, BOX_END, QUAD, QUAD_END)
IMAGE_TAGS = (IMG, IMG_END, IMG_PAD)
GROUNDING = TaggedPlaces(ref=(REF, REF_END), box=(BOX, BOX_END), quad=(QUAD, QUAD_END))

_IMAGE = re.compile(f"{IMG}(.*?){IMG_END}", re.DOTALL)
_ELEMENT = re.compile(r"<(?P<kind>img|ref|box|quad)>(?P<content>.*?)</(?P=kind)>", re.DOTALL)
_CORNERS = re.compile(r"\((\d+),\s*(\d+)\),\s*\((\d+),\s*(\d+)\)", re.ASCII)
_SHOWN_CHARACTERS = 40

Element = dict[str, Any]
Corners = tuple[int, int, int, int]
# Queries and answers of a chat, the oldest first; an answer may be missing.
History = Sequence[tuple[str, str | None]]


@dataclass(frozen=True)
class ImageSpan:
    """The place of an image in a prompt.

    Attributes:
        path: what stands between the image's tags; "" for an image without a name.
    """

    path: str

    def __str__(self) -> str:
        return f"{IMG}{self.path}{IMG_END}"


def split_at_images(text: str) -> Iterator[str | ImageSpan]:
    """Cut a text at its images.

    Args:
        text: in which `<img>` opens an image.

    Yields:
        The stretches between images that are not empty, and the images, in their order.

    Raises:
        ValueError: an image is not closed.
    """
    for place, stretch in enumerate(_IMAGE.split(text)):
        if place % 2:
            yield ImageSpan(stretch)
        elif IMG in stretch:
            shown = stretch[stretch.index(IMG) :][:_SHOWN_CHARACTERS]
            raise ValueError(f"the text's {shown!r} is not closed; expected `{IMG}path{IMG_END}`.")
        elif stretch:
            yield stretch


def from_list_format(elements: Iterable[Element], *, shown: int = 0) -> str:
    """Put a prompt together.

    Args:
        elements: each of `{"image": path}`, `{"text": ...}` and `{"box": [[x1, y1, x2, y2], ...]}`, the last with or
            without a `"ref"`, what its boxes show. Coordinates are thousandths of the image's sides, rounded down.
        shown: how many images were shown before.

    Returns:
        The prompt, its images numbered from `shown` + 1.

    Raises:
        ValueError: an element is none of these.
    """
    text, images = "", shown
    for element in elements:
        if "image" in element:
            images += 1
            text += f"Picture {images}: {_image(element)}\n"
        elif "text" in element:
            text += element["text"]
        elif "box" in element:
            text += f"{REF}{element['ref']}{REF_END}" if "ref" in element else ""
            text += "".join(_box(corners, element) for corners in element["box"])
        else:
            raise ValueError(f"the element {element} has none of the keys image, text and box.")
    return text


def to_list_format(text: str) -> list[Element]:
    """Take a text apart at its tags; a tag without its partner is text.

    Args:
        text: a prompt or an answer.

    Returns:
        One element each: `{"image": path}`, `{"ref": name}`, `{"box": corners as written}`, `{"quad": ...}` or
        `{"text": ...}`.
    """
    elements: list[Element] = []
    place = 0
    for match in _ELEMENT.finditer(text):
        kind = match["kind"]
        elements += _text(text[place : match.start()])
        elements.append({"image" if kind == "img" else kind: match["content"]})
        place = match.end()
    return elements + _text(text[place:])


def boxes_with_names(text: str) -> list[Element]:
    """Read the boxes of a text; malformed ones are ignored.

    Args:
        text: an answer.

    Returns:
        `{"box": (x1, y1, x2, y2)}` each, as written, with `"ref"` where a name stands somewhere before it.
    """
    found: list[Element] = []
    name: Element = {}
    for element in to_list_format(text):
        if "ref" in element:
            name = {"ref": element["ref"].strip()}
        elif "box" in element and (corners := _CORNERS.fullmatch(element["box"].strip())):
            found.append({"box": tuple(map(int, corners.groups())), **name})
    return found


def _image(element: Element) -> ImageSpan:
    span = ImageSpan(str(element["image"]))
    if IMG in span.path or IMG_END in span.path:
        raise ValueError(f"the path of {element} holds a tag of images; rename the file.")
    return span


def _box(corners: Any, element: Element) -> str:
    if len(corners) != 4:
        raise ValueError(f"a box of {element} has {len(corners)} numbers; expected x1, y1, x2, y2.")
    x1, y1, x2, y2 = map(int, corners)
    return f"{BOX}({x1},{y1}),({x2},{y2}){BOX_END}"


def _text(text: str) -> list[Element]:
    return [{"text": text}] if text else []
