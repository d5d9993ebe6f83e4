"""Chat templates of strangers: each that asks for endless work, memory or text ends in one line."""

import contextlib
import ctypes
import resource
import threading
import time

import pytest
from tokenizers_made import byte_level

from harness.errors import BadInput
from harness.models import chat_format, chat_template

SAID = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
TOO_MUCH = {
    "a product": "{{ 'x' * 10**10 }}",
    "a product the other way": "{{ 10**10 * 'x' }}",
    "a list repeated": "{% set a = [1] * 10**10 %}",
    "a power": "{{ 7 ** (10 ** 10) }}",
    "squares of squares": "{% set n = namespace(v=10) %}{% for i in range(60) %}{% set n.v = n.v * n.v %}{% endfor %}",
    "a filter that pads": "{{ 'x'|center(10**10) }}",
    "a method that pads": "{{ 'x'.ljust(10**10) }}",
    "zeros": "{{ '1'.zfill(10**10) }}",
    "a format": "{{ '%1000000000d'|format(7) }}",
    "a format by the sign": "{{ '%2000000000d' % 7 }}",
    "a format by its method": "{{ '{:>9999999999}'.format(1) }}",
    "an indent": "{{ 'x\ny'|indent(10**10) }}",
    "a long range": "{{ range(10**9)|list }}",
    "text doubled": "{% set n = namespace(v='x') %}{% for i in range(60) %}{% set n.v = n.v ~ n.v %}{% endfor %}",
    "sums doubled": "{% set n = namespace(v='x') %}{% for i in range(60) %}{% set n.v = n.v + n.v %}{% endfor %}",
    "lists doubled": "{% set n = namespace(v=[1]) %}{% for i in range(60) %}{% set n.v = n.v + n.v %}{% endfor %}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "much text": "{% for i in range(99999) %}" + 100 * "long " + "{% endfor %}",
    "replaced": "{% set a = 'x' * 99999 %}{{ a|replace('x', a) }}",
    "brackets": "{{ " + 20_000 * "(" + "1" + 20_000 * ")" + " }}",
    "lorem ipsum": "{{ lipsum(n=10**7) }}",
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_template_beyond_its_bounds_is_refused_in_one_line(kind, monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 1.0)
    began = time.process_time()
    with pytest.raises(BadInput, match="cannot render a user's turn") as refused:
        chat_format.with_template(byte_level(), "a file", TOO_MUCH[kind] + SAID, None)
    assert "\n" not in str(refused.value) and time.process_time() - began < 20


def test_loops_without_end_are_ended_by_the_watch(monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 0.5)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(chat_template.TemplateRefused, match="processor time"):
        _rendered(loops + SAID)


def test_the_watch_strikes_once(monkeypatch):
    """A second exception would strike while the first one is handled, and leave the limit of memory behind."""
    monkeypatch.setattr(chat_template, "SECONDS", 0.2)
    before, struck = resource.getrlimit(resource.RLIMIT_AS), []

    class Stubborn:
        def apply_chat_template(self, turns, **how):
            end = time.process_time() + 1.5
            for _ in range(5):
                try:
                    while time.process_time() < end:
                        sum(range(999))
                except chat_template._TooLong as error:
                    struck.append(error)
            return "text"

    assert chat_template.render(Stubborn(), []) == "text" and len(struck) == 1
    assert resource.getrlimit(resource.RLIMIT_AS) == before and not chat_template._rendering


def test_an_exception_that_comes_too_late_leaves_no_limit():
    before = resource.getrlimit(resource.RLIMIT_AS)

    class Late:
        def apply_chat_template(self, turns, **how):
            thread = ctypes.c_ulong(threading.get_ident())
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(chat_template._TooLong))
            return "text"

    with contextlib.suppress(chat_template.TemplateRefused):
        chat_template.render(Late(), [])
    assert resource.getrlimit(resource.RLIMIT_AS) == before and not chat_template._rendering


def test_what_templates_do_is_within_the_bounds():
    """Small products, indents, long texts; and the limit of memory is gone afterwards."""
    before, long = resource.getrlimit(resource.RLIMIT_AS), "word " * 20_000
    text = _rendered(
        "{{ '=' * 40 }}{{ 'x'|center(9) }}{{ 2 ** 8 * 3 }}{% for i in range(3) %}{{ i }}{% endfor %}" + SAID, long
    )
    assert text == "=" * 40 + "    x    " + "768012<|user|>" + long
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def _rendered(template: str, said: str = "hello") -> str:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    return chat_template.render(tokenizer, [{"role": "user", "content": said}])
