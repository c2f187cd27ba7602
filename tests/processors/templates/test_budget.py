"""Chat templates are programs of strangers: none of them may run on, or write without end."""

from __future__ import annotations

import re
import resource
import time

import pytest

from paddlemix.processors.templates.environment import CompiledTemplate, TemplateProblem

MESSAGES = [{"role": "user", "content": "words"}, {"role": "assistant", "content": "more words"}] * 3
DOUBLED = "{% set ns = namespace(a=['x']) %}{% for i in range(60) %}{% set ns.a = EACH %}{% endfor %}"
ATTACKS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that filter": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "a loop that writes": "{% for a in range(99999) %}" + "text " * 2000 + "{% endfor %}",
    "a great range": "{% for a in range(10**9) %}{% endfor %}",
    "a text times a number": "{{ 'a' * 10**10 }}",
    "a number times a text": "{{ 10**10 * 'a' }}",
    "a list times a number": "{{ ([1] * 10**10) | length }}",
    "a text that doubles": DOUBLED.replace("EACH", "ns.a ~ ns.a") + "{{ ns.a }}",
    "a sum that doubles": DOUBLED.replace("EACH", "ns.a + ns.a") + "{{ ns.a }}",
    "a tree that doubles": DOUBLED.replace("EACH", "[ns.a, ns.a]") + "{{ ns.a }}",
    "a tree as JSON": DOUBLED.replace("EACH", "[ns.a, ns.a]") + "{{ ns.a | tojson }}",
    "a tree as a text": DOUBLED.replace("EACH", "[ns.a, ns.a]") + "{{ (ns.a | string) | length }}",
    "trees compared": (
        "{% set ns = namespace(a=['x'], b=['x']) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}"
        "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}"
    ),
    "trees hashed": (
        "{% set ns = namespace(a=('x',)) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}"
        "{{ {}[ns.a] }}{{ {'a': 1}.get(ns.a) }}"
    ),
    "a tree of dicts": DOUBLED.replace("EACH", "dict(a=ns.a, b=ns.a)") + "{{ ns.a }}",
    "a tree in a test": DOUBLED.replace("EACH", "[ns.a, ns.a]") + "{{ ns.a is eq([ns.a, 1]) }}",
    "a value in itself": "{% set ns = namespace() %}{% set ns.a = ns %}{{ [ns] }}{{ ns.a.a.a }}{{ [ns] | tojson }}",
    "a filter's width": "{{ 'x' | center(10**10) }}",
    "an indent": "{{ 'x\n' * 1000 | int }}{{ ('x\n' * 1000) | indent(10**9) }}",
    "an indent by a text": "{{ ('x\n' * 1000) | indent('y' * 100000) }}",
    "wrapped words": "{{ ('x' * 100000) | wordwrap(1, true, 'y' * 100000) }}",
    "an indent of JSON": "{{ messages | tojson(indent=10**9) }}",
    "batches": "{{ [1] | batch(10**9, 'x') | list | length }}",
    "slices": "{{ [1] | slice(10**9, 'x') | list | length }}",
    "a method's width": "{{ 'x'.ljust(10**10) }}",
    "zeros": "{{ '1'.zfill(10**10) }}",
    "tabs": "{{ ('\t' * 1000).expandtabs(10**9) }}",
    "replaced texts": "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "replaced between": "{{ ('x' * 100000) | replace('', 'y' * 100000) }}",
    "joined by a text": "{{ range(9999) | join('y' * 100000) }}",
    "a method that joins": "{{ ('y' * 100000).join(['a'] * 10000) }}",
    "a width of %": "{{ '%1000000000d' % 1 }}",
    "a width given to %": "{{ '%*d' % (10**9, 1) }}",
    "a width of format": "{{ '{:1000000000}'.format(1) }}",
    "a width given to format": "{{ '{:{}}'.format(1, 10**9) }}",
    "a filter's format": "{{ '%1000000000d' | format(1) }}",
    "many fields": "{{ ('{0}' * 20000).format('y' * 100000) }}",
    "a power": "{{ 10 ** (10 ** 9) }}",
    "powers": "{% set ns = namespace(a=7) %}{% for i in range(99) %}{% set ns.a = ns.a * ns.a %}{% endfor %}{{ ns.a }}",
    "a number's bytes": "{{ (5).to_bytes(10**10, 'big') }}",
    "a rounded number": "{{ 5 | round(-10**9) }}",
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "blocks that call themselves": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "a loop that calls itself": "{% for a in [1, 2] recursive %}{{ loop([a, a]) }}{% endfor %}",
    "a chain of attributes": (
        "{% set ns = namespace() %}{% set ns.a = ns %}"
        "{{ ([ns] * 9999) | map(attribute='a' ~ '.a' * 99999) | list | length }}"
    ),
    "sums of lists": "{{ ([[1] * 1000] * 1000) | sum(start=[]) | length }}",
    "filters in loops": "{% for a in range(99999) %}{{ range(99999) | select('odd') | list | length }}{% endfor %}",
    "pieces": "{{ (('x ' * 100000).split() + ('x ' * 900000).split()) | length }}",
    "a text that is odd": "{{ '%1000000000d' is odd }}",
    "a text that is divisible": "{{ '%1000000000d' is divisibleby 3 }}",
    "a text that is rounded": "{{ 'a' | round(10, 'floor') }}",
    "a list that is rounded": "{{ [1] | round(9, 'ceil') }}",
    "random words": "{{ lipsum(n=10**6) }}",
    "a long message": "{{ raise_exception('x' * 10**10) }}",
    "a date": "{{ strftime_now('%Y' * 10**6) }}",
    "sorted over and over": "{% for a in range(99999) %}{{ (range(9999) | sort) | length }}{% endfor %}",
    "slices of slices": "{% set t = 'x' * 900000 %}{% for a in range(99999) %}{% set u = t[1:] %}{% endfor %}",
    "texts compared": (
        "{% set t = 'x' * 500000 %}{% set u = t[1:] ~ 'y' %}"
        "{% for a in range(99999) %}{{ 'z' in t }}{{ u == t }}{% endfor %}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", ATTACKS.values(), ids=ATTACKS)
def test_a_template_that_would_never_end_or_fill_memory_is_stopped(source):
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(TemplateProblem) as caught:
        CompiledTemplate(source, "chat_template.jinja").render(messages=MESSAGES)
    assert re.match(r"chat_template\.jinja:\d: the chat template (stops|is no jinja2): ", str(caught.value))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert time.thread_time() - began < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if a %}" * 3000 + "{% endif %}" * 3000,
        "{% for a in b %}" * 30 + "{% endfor %}" * 30,
        "{{ 1" + " + 1" * 60000 + " }}",
        "{{ [" * 3000 + "]" * 3000 + " }}",
        "x" * 300_000,
        "{{ 1" + "0" * 5000 + " }}",
    ],
)
def test_a_template_that_is_nested_too_deep_or_too_long_is_refused_while_it_is_read(source):
    with pytest.raises(TemplateProblem, match=r"^chat_template\.jinja:1: the chat template ") as caught:
        CompiledTemplate(source, "chat_template.jinja")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_a_long_conversation_is_within_the_budget():
    source = (
        "{% set ns = namespace(last=0, texts=[]) %}{% for m in messages[::-1] %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role }}\n"
        "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}"
        "{{ part.text.split('</think>')[-1].lstrip('\\n') }}{% endfor %}{% endif %}{{ m | tojson }}<|im_end|>\n"
        "{% endfor %}"
    )
    turn = [{"role": "user", "content": "q " * 200}, {"role": "assistant", "content": [{"text": "a " * 2000}] * 3}]
    text = CompiledTemplate(source, "t.jinja").render(messages=turn * 1000)
    assert text.count("<|im_start|>") == 2000


def test_what_templates_use_gives_what_jinja2_gives():
    source = (
        "{{ 'a' * 3 ~ 1 ~ none }}|{{ 'x %s y' % 'z' }}|{{ '{}-{a}'.format(1, a=2) }}|{{ [1, 2] + [3] }}|{{ 7 // 2 }}|"
        "{{ 2 ** 10 }}|{{ 'a,b'.split(',') | join('+') }}|{{ [3, 1, 2] | sort | map('string') | join }}|"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}|{{ messages | map(attribute='role') "
        "| unique | list }}|{{ 'abc'[::-1] }}|{{ 1 if 'b' in 'abc' and [1] == [1] else 2 }}|{{ 'x' | indent(2, 1) }}|"
        "{{ {'a': 1} | tojson }}|{{ 5 | round }}|{{ 'A' | lower | center(5) }}|{{ [1, 2, 3] | sum }}|{{ 17 % 5 }}|"
        "{{ 'aXb'.replace('X', '-') }}|{{ range(3) | list }}|{{ '1' | int + 1 }}"
    )
    assert CompiledTemplate(source, "t.jinja").render(messages=MESSAGES) == (
        "aaa1None|x z y|1-2|[1, 2, 3]|3|1024|a+b|123|3|['user', 'assistant']|cba|1|  x|"
        '{"a": 1}|5|  a  |6|2|a-b|[0, 1, 2]|2'
    )
