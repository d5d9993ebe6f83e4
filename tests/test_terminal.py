"""What a person at a terminal meets: help with examples that parse, names given in any way, tables that fit."""

import argparse
import json
import shlex
from pathlib import Path

import pytest

from harness.cli import main, parser
from harness.commands import NAMES, arguments
from harness.leaderboard.table import leaderboard, render
from harness.leaderboard.text_tables import Table, TableCell, plain, terminal
from harness.records.store import Store

MICRO = Path(__file__).parent.parent / "results/micro"


def commands():
    return parser()._subparsers._group_actions[0].choices


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_a_command_is_for_with_three_examples_that_parse(name):
    command = commands()[name]
    assert command.description and command.epilog.startswith("examples:")
    examples = [line.strip() for line in command.epilog.splitlines()[1:]]
    assert len(examples) == 3
    for example in examples:
        words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"').partition(" > ")[0])
        assert words[:2] == ["harness", name]
        parser().parse_args(words[1:])


@pytest.mark.parametrize(
    "words",
    [
        "-m kd,gkd -t amc23 -s 0,1",
        "--method kd gkd --task amc23 --seed 0 1",
        "-m kd -m gkd -t amc23 -s 0 -s 1",
        "-m kd, gkd -t amc23 --seed 0, 1",
    ],
)
def test_names_and_seeds_are_given_in_any_way(words):
    chosen = parser().parse_args(["run", *words.split()])
    assert (chosen.method, chosen.task, chosen.seed) == (["kd", "gkd"], ["amc23"], [0, 1])


def test_a_path_with_a_comma_stays_whole(tmp_path):
    path = tmp_path / "a,b.py"
    path.touch()
    assert parser().parse_args(["run", "-m", str(path), "-t", "amc23"]).method == [str(path)]


def test_positional_arguments_may_follow_the_task():
    chosen = parser().parse_args(["compare", "-t", "amc23,humaneval", "kd", "gkd"])
    assert (chosen.a, chosen.b, chosen.task) == ("kd", "gkd", ["amc23", "humaneval"])


@pytest.mark.parametrize("word", ["-1", "1.5", "x", "2147483648"])
def test_a_seed_that_is_none_is_refused(word, capsys):
    assert main(["run", "-m", "kd", "-t", "amc23", f"--seed={word}"]) == 2
    assert "is not a whole number from 0" in capsys.readouterr().err


def test_list_without_a_kind_names_everything(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for word in ("methods", "gkd", "humaneval", "papers", "distillm2", "accuracy"):
        assert word in text
    assert main(["list", "--json"]) == 0
    assert "gkd" in json.loads(capsys.readouterr().out)["methods"]


@pytest.mark.parametrize(
    "words, first",
    [
        (["gkd"], "method: gkd"),
        (["gkd@trl"], "method: gkd"),
        (["amc23@micro"], "task: amc23"),
        (["maths"], "recipe: maths"),
        (["pass@1"], "metric: pass@1"),
        (["methods", "gkd"], "method: gkd"),
        (["untouched-amc23@micro-s0"], "untouched-amc23@micro-s0-3ff79cd2"),
    ],
)
def test_show_finds_a_name_of_any_kind(words, first, capsys):
    assert main(["show", *words, "--results", str(MICRO)]) == 0
    assert capsys.readouterr().out.startswith(first)


def test_show_says_what_else_a_name_means(capsys):
    assert main(["show", "vcrd"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("method: vcrd") and "harness show paper vcrd" in captured.err


@pytest.mark.parametrize(
    ("name", "said"), [("gkdd", "did you mean gkd?"), ("task", "needs a NAME; harness list tasks lists them")]
)
def test_show_offers_the_nearest_name(name, said, capsys):
    assert main(["show", name]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_code_for_the_shell(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "harness" in capsys.readouterr().out


def test_a_shell_completes_names():
    action = next(a for a in commands()["run"]._actions if a.dest == "method")
    assert "gkd" in action.completer("g", argparse.Namespace())


# -- tables ----------------------------------------------------------------------------------------------------------


def sections(task="amc23"):
    store = Store(MICRO)
    return leaderboard(store.all()[0], [task], store.completions)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width):
    text = terminal([], width) + render(sections(), "terminal", width=width, grid=True, cards=True)
    from rich.text import Text

    assert max(Text.from_ansi(line).cell_len for line in text.splitlines()) <= width


def test_a_narrow_terminal_keeps_the_score_and_names_what_it_leaves_out():
    narrow, wide = (render(sections(), "terminal", width=width) for width in (80, 250))
    assert "95 % interval" in narrow and "hidden to fit the width: correct/total" in narrow
    assert "peak memory" in wide and "hidden to fit the width" not in wide


def test_a_terminal_says_what_a_column_means_that_it_shows():
    from rich.text import Text

    wide, narrow = (Text.from_ansi(render(sections(), "terminal", width=width)).plain for width in (100, 40))
    assert "recovery: share of the way from the untrained student to the teacher" in " ".join(wide.split())
    assert "share of the way" not in narrow


def test_variants_and_formulas_of_a_card_keep_their_lines(capsys, monkeypatch):
    monkeypatch.setattr(arguments, "on_terminal", lambda: True)
    monkeypatch.setattr(arguments, "width", lambda: 80)
    assert main(["show", "method", "gkd"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("gkd@") for line in lines) == 3 and "    m = beta p + (1 - beta) q" in lines


def test_columns_are_chosen(capsys):
    assert main(["table", "-t", "amc23", "--columns", "score,seeds", "--results", str(MICRO)]) == 0
    assert "| method | score | seeds |" in capsys.readouterr().out
    assert main(["table", "-t", "amc23", "--columns", "scores", "--results", str(MICRO)]) == 2
    assert "did you mean score" in capsys.readouterr().err
    assert main(["table", "-t", "amc23", "--columns", "score", "--format", "csv", "--results", str(MICRO)]) == 2
    assert main(["table", "--columns", "score", "--layout", "grid", "--results", str(MICRO)]) == 2
    assert "--layout grid prints none" in capsys.readouterr().err
    assert main(["table", "--columns", "seeds", "--format", "terminal", "--results", str(MICRO)]) == 0
    assert "All tasks" not in capsys.readouterr().out


def test_a_cell_cannot_act_on_the_terminal(capsys):
    sheet = Table("t\x1b[2J", "s\x07", ["m\x1b]0;x\x07", "score"], [[TableCell("\x1b[31mred"), TableCell("1")]])
    text = terminal([sheet], 80)
    assert "\x1b[2J" not in text and "\x07" not in text and "\x1b[31m" not in text
    assert terminal([sheet], 80, colour=False).count("\x1b") == 0


def test_a_pipe_gets_markdown_and_a_terminal_gets_a_table(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    assert arguments.prose_format() == "md"
    monkeypatch.setattr("sys.__stdout__", Terminal())
    assert arguments.prose_format() == "terminal"


def test_a_protocol_is_called_by_its_name_or_a_hash(capsys):
    for word in ("def393aae999", "def3", "b675f8063897"):
        assert main(["table", "-t", "amc23", "--protocol", word, "--results", str(MICRO)]) == 0
    capsys.readouterr()
    assert main(["table", "-t", "amc23", "--protocol", "no such", "--results", str(MICRO)]) == 2
    assert "no record was measured under it" in capsys.readouterr().err


def test_a_run_takes_a_protocol_by_the_hash_of_its_card():
    from harness.evaluation.cards import OWN, cards, protocol_called

    found = {card["name"]: card["hash"] for card in cards("amc23@micro")}
    for name, digits in found.items():
        if digits is not None and list(found.values()).count(digits) == 1:
            assert protocol_called(["amc23@micro"], digits[:8]) == (None if name == OWN else name)
    assert protocol_called(["amc23@micro"], "qwen25-math") == "qwen25-math"
    assert protocol_called(["amc23@micro"], "ffffffff") == "ffffffff"


def test_long_texts_of_a_narrow_table_stand_below_it_once_each_with_their_rows():
    rows = [plain("one", "1.0", "sampled once", "unknown"), plain("two", "2.0", "sampled once", "a family")]
    sheet = Table("title", "", ["reported", "value", "decoding", "student"], rows, words=True, below=(2, 3))
    wide, narrow = (terminal([sheet], width, colour=False).splitlines() for width in (80, 30))
    assert not any("decoding:" in line for line in wide) and sum("sampled once" in line for line in wide) == 2
    assert [line.rstrip() for line in narrow[-4:]] == [
        "two       2.0",
        "decoding: sampled once",
        "student: unknown  (one)",
        "student: a family  (two)",
    ]
