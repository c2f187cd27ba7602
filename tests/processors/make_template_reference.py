"""Write what transformers makes of the templates of tests/fixtures/chat_templates/: `renderings.json` there.

python tests/processors/make_template_reference.py    # with transformers 4.57.6
"""

from __future__ import annotations

import json
from pathlib import Path

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = Path(__file__).parents[1] / "fixtures/chat_templates"
TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
TOOL = {"type": "function", "function": {"name": "zoom", "description": "放大 <a>", "parameters": {}}}


def main() -> None:
    """Render every template for every conversation."""
    rows = []
    for path in sorted(FOLDER.glob("*.jinja")):
        for messages in conversations():
            for settings in ({}, {"add_generation_prompt": True}, {"tools": [TOOL]}, {"add_vision_id": True}):
                rows.append({"template": path.name, "messages": messages, "settings": settings})
                rows[-1] |= rendered(path.read_text("utf-8"), messages, settings)
    text = json.dumps({"tokens": TOKENS, "rows": rows}, ensure_ascii=False, indent=1)
    (FOLDER / "renderings.json").write_text(text + "\n", encoding="utf-8")


def conversations() -> list[list[dict]]:
    """Give chats with contents as strings and as lists."""
    image = {"type": "image", "image": "a.jpg"}
    return [
        [{"role": "user", "content": "What is it?"}],
        [{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": " Q \n"}],
        [
            {"role": "user", "content": "Q\n"},
            {"role": "assistant", "content": "\n A 放 "},
            {"role": "user", "content": "R"},
            {"role": "assistant", "content": "B."},
        ],
        [{"role": "user", "content": [image, {"type": "text", "text": "Q "}]}, {"role": "assistant", "content": "A"}],
        [{"role": "system", "content": "S"}],
        [{"role": "user", "content": "Q"}, {"role": "critic", "content": "C"}],
    ]


def rendered(template: str, messages: list[dict], settings: dict) -> dict:
    """Give the text, or what stopped the template."""
    settings = dict(settings)
    tools = settings.pop("tools", None)
    try:
        texts, _ = render_jinja_template([messages], tools=tools, chat_template=template, **TOKENS, **settings)
    except (TemplateError, TypeError) as error:
        return {"stops": str(error)}
    return {"text": texts[0]}


if __name__ == "__main__":
    main()
