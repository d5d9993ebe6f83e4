"""Progress in a pipe: a line now and then whatever the work waits for, with stage, count, details and time left."""

import logging
import re
import time

import pytest

from harness import progress
from harness.progress import Reporter, TextCount


@pytest.fixture
def lines(capsys):
    """What a reporter has written so far; stderr is no terminal here."""
    written = []

    def read():
        written.extend(capsys.readouterr().err.splitlines())
        return written

    return read


@pytest.fixture
def clock(monkeypatch):
    """[seconds], which the tests move on."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def until(lines, wanted):
    """The first line that matches; the reporter writes them from a thread of its own."""
    for _ in range(500):
        if found := [line for line in lines() if re.search(wanted, line)]:
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"no line {wanted} in {lines()}")


def test_a_silent_stage_still_says_that_it_lives(lines):
    with Reporter(line_every=0.02) as reporter:
        reporter.progress(*progress.LOADING)
        assert re.fullmatch(r"loading: \d+ s so far", until(lines, "loading"))
        reporter.progress("train", 3, 10, "loss 1.2, 400 tokens a second")
        assert until(lines, "train: 3").startswith("train: 3 of 10, loss 1.2, 400 tokens a second")
        reporter.progress("train", 4, 10, "loss 1.1")
        assert re.fullmatch(r"train: 4 of 10, loss 1.1, about \d+ s left", until(lines, "train: 4"))
        reporter.progress("train", 10, 10, "loss 1.0")
        assert until(lines, "train: 10") == "train: 10 of 10, loss 1.0"
    written = len(lines())
    time.sleep(0.1)
    assert len(lines()) == written


def test_the_time_left_of_a_resumed_stage_counts_from_where_it_began(clock):
    reporter = Reporter(line_every=None)
    reporter.progress("train", 80, 100, "")
    clock[0] += 60
    reporter.progress("train", 90, 100, "")
    assert reporter.stage.line() == "train: 90 of 100, about 60 s left"


def test_the_time_left_falls_while_a_part_is_at_work(clock):
    """A step of some minutes is not yet a reason to expect more of the others; a longer one counts as done now."""
    reporter = Reporter(line_every=None)
    reporter.progress("train", 0, 5, "")
    clock[0] += 600
    reporter.progress("train", 2, 5, "loss 1.2")
    for after, left in ((0, "15 min"), (180, "12 min"), (300, "10 min"), (600, "13 min")):
        clock[0] = 700 + after
        reporter.progress("train", 2, 5, "loss 1.2")  # of another text, not of another step
        assert reporter.stage.line() == f"train: 2 of 5, loss 1.2, about {left} left"
    reporter.progress("train", 4, 5, "")
    clock[0] += 60
    assert reporter.stage.line() == "train: 4 of 5, about 4 min left"
    clock[0] += 600
    assert reporter.stage.line() == "train: 4 of 5, 31 min so far"


def test_nothing_is_written_where_no_lines_are_wanted_or_nothing_was_begun(lines):
    for every, begun in ((None, True), (0.01, False)):
        with Reporter(line_every=every) as reporter:
            if begun:
                reporter.progress("train", 1, 2, "")
            time.sleep(0.05)
    assert lines() == []


def test_by_default_a_pipe_gets_more_than_one_line_a_minute():
    assert Reporter().line_every is not None and Reporter().line_every <= 60


def test_a_notebook_shows_one_output_that_is_rewritten(lines, monkeypatch):
    outputs = []  # of the cell; each a list of what it has shown

    class Output:
        def __init__(self, shown):
            self.shown = [shown["text/plain"]]

        def update(self, shown, raw):
            self.shown.append(shown["text/plain"])

    def display(shown, raw, display_id):
        outputs.append(Output(shown))
        return outputs[-1]

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(progress, "CELL_EVERY_S", 0.0)
    with Reporter(line_every=None) as reporter:
        reporter.announce("gkd-amc23: gkd on amc23@micro")
        logging.getLogger("harness.sandbox").warning("sandbox tier C")
        for step in range(5):
            reporter.progress("train", step, 10, "loss 1.2")
    (output,) = outputs
    announced, bar, stage = output.shown[-2].rsplit("\n", 2)
    assert bar == "━" * 10 + "╌" * 14 and stage.startswith("train: 4 of 10, loss 1.2")
    assert output.shown[-1] == announced == "gkd-amc23: gkd on amc23@micro\nsandbox tier C"
    assert lines() == []


@pytest.mark.parametrize(("seconds", "words"), [(7, "7 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h")])
def test_times_in_words(seconds, words):
    assert progress.duration(seconds) == words


def test_texts_and_tokens_are_counted_one_by_one():
    heard = []
    tally = TextCount(lambda *told: heard.append((*told[:2], told[2].split(",")[0])), 2)
    tally.wrote(2)
    tally.wrote(2)
    tally.finished(1, None)
    tally.finished(0, None)
    assert heard == [(0, 2, ""), (0, 2, "2 tokens"), (0, 2, "4 tokens"), (1, 2, "4 tokens"), (2, 2, "4 tokens")]
