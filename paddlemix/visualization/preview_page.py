"""The page that shows records as a model will see them: one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined

from paddlemix.printable import printable
from paddlemix.visualization.preview import RecordView

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", "WenQuanYi Micro Hei", sans-serif; margin: 2rem auto;
         max-width: 70rem; padding: 0 1rem; color: #1c1c1e; background: #f6f6f4; }
  h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } h3 { font-size: .9rem; margin: 0 0 .5rem; }
  h4 { font-size: .8rem; margin: .75rem 0 0; color: #63635e; }
  article { background: white; border: 1px solid #dcdcd8; border-radius: 6px; padding: 1rem; margin: 1rem 0; }
  figure { display: inline-block; margin: 0 1rem .5rem 0; vertical-align: top; }
  img { max-width: 100%; display: block; }
  figcaption, .counts { color: #63635e; font-size: .8rem; overflow-wrap: anywhere; }
  figcaption { max-width: 512px; }
  pre { font: 14px/1.6 ui-monospace, "Noto Sans Mono CJK SC", "WenQuanYi Micro Hei Mono", monospace;
        white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0 0; }
  .trained { background: #c9f0cf; }
  .control { color: #1f5fbf; font-size: .85em; }
  .problem { color: #b3261e; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>Text as the model reads it. <span class="trained">Green is what it is trained to say</span>,
<span class="control">blue are control tokens</span>, <span class="control">&times; 12</span> means twelve of them.</p>
{% for set in sets %}
<section>
<h2>{{ set.title }}</h2>
{% for record in set.records %}
<article>
<h3>{{ record.title }}</h3>
{% if record.problem %}
<p class="problem">{{ record.problem }}</p>
{% else %}
<p class="counts">{{ record.tokens }} tokens, {{ record.image_tokens }} of images and videos,
{{ record.trained_tokens }} trained</p>
{% for one in record.thumbnails %}
<figure><img src="{{ one.source }}" alt=""><figcaption>{{ one.caption }}</figcaption></figure>
{% endfor %}
<pre>
{%- for one in record.stretches -%}
<span class="{{ 'trained' if one.weight }} {{ 'control' if one.control }}"
{%- if one.weight not in (0, 1) %} title="loss &times; {{ '%g' % one.weight }}"{% endif %}>{{ one.text }}
{%- if one.repeat > 1 and one.control %} &times; {{ one.repeat }}{% endif %}</span>
{%- endfor -%}
</pre>
{% if record.answer is not none %}
<h4>Right answer</h4>
<pre>{{ record.gold }}</pre>
<h4>The model's answer{{ ", the same" if record.answer == record.gold }}</h4>
<pre>{{ record.answer }}</pre>
{% endif %}
{% endif %}
</article>
{% endfor %}
</section>
{% endfor %}
</body>
</html>
"""


@dataclass(frozen=True)
class SetView:
    """A set on the page.

    Attributes:
        title: its place in the config, its format and its files.
        records: its first ones.
    """

    title: str
    records: tuple[RecordView, ...]


def preview_page(title: str, sets: Sequence[SetView]) -> str:
    """Write the page.

    Args:
        title: its heading.
        sets: what it shows.

    Returns:
        HTML; all words of records are escaped and made printable.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown)
    return environment.from_string(_TEMPLATE).render(title=title, sets=sets)


def _shown(value: object) -> object:
    """Make a text of the page printable; numbers stay."""
    return printable(value) if isinstance(value, str) else value
