"""What a shell completes, and how a wrong word, or none, is answered."""

import argparse
import io
import os
import shutil

import argcomplete
import pytest

from harness.cli import main, parser
from harness.commands import NAMES, arguments


@pytest.fixture
def completed(monkeypatch, tmp_path):
    """The completions of a line, as a shell is told them."""
    (tmp_path / "records/amc23@micro/kd").mkdir(parents=True)
    (tmp_path / "records/amc23@micro/kd/kd-amc23@micro-s0-0123abcd.json").touch()
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path))
    monkeypatch.setattr("argcomplete.CompletionFinder._init_debug_stream", lambda self: None)  # it takes descriptor 9
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setenv("_ARGCOMPLETE_IFS", "\n")
    monkeypatch.setenv("_ARGCOMPLETE_SUPPRESS_SPACE", "1")

    def completed(line):
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        told = io.StringIO()

        def leave(code=0):
            raise SystemExit(code)

        with pytest.raises(SystemExit):
            argcomplete.autocomplete(parser(), exit_method=leave, output_stream=told)
        return told.getvalue().split("\n")

    return completed


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("harness ta", "table"),
        ("harness table --lay", "--layout"),
        ("harness run -m vcr", "vcrd"),
        ("harness run -m gkd,vcr", "gkd,vcrd"),
        ("harness run -m gkd@tr", "gkd@trl"),
        ("harness run -t humaneval@mi", "humaneval@micro"),
        ("harness run --recipe mat", "maths"),
        ("harness show humanevalp", "humanevalplus"),
        ("harness show pap", "paper"),
        ("harness show kd-amc", "kd-amc23@micro-s0-0123abcd"),
        ("harness verify kd-amc", "kd-amc23@micro-s0-0123abcd"),
        ("harness compare gkd vcr", "vcrd"),
        ("harness reproduce luf", "luffy"),
    ],
)
def test_a_shell_completes_commands_options_and_names(completed, line, expected):
    assert completed(line) == [expected]


def test_bash_keeps_an_at_sign_within_a_word(capsys):
    for shell, breaks in (("bash", True), ("zsh", False), ("fish", False)):
        assert main(["completion", shell]) == 0
        assert ("COMP_WORDBREAKS//@" in capsys.readouterr().out) == breaks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tabel", "unknown command 'tabel'; did you mean table?"),
        ("table --layout gird", "unknown --layout 'gird'; did you mean grid?"),
        ("list metods", "unknown kind 'metods'; did you mean methods, metrics?"),
        ("list what", "did you mean judges, methods, metrics, papers, recipes, signals, tasks?\n"),
        ("list methods tasks", "harness list does not take 'tasks'"),
        ("table gkd", "harness table does not take 'gkd'; name tasks behind -t"),
        ("run gkd humaneval", "harness run does not take 'gkd humaneval'; name methods behind -m and tasks behind -t"),
        ("show gdk --results nowhere", "harness: unknown name 'gdk'; did you mean gkd?"),
        ("run -m gkd -t humanevl", "unknown task 'humanevl'; did you mean humaneval, humanevalplus?"),
        ("completion bsh", "unknown shell 'bsh'; did you mean bash, zsh, fish?"),
        ("run --taks humaneval", "unknown option of harness run '--taks'; did you mean --task"),
        ("board --opne", "unknown option of harness board '--opne'; did you mean --open"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(capsys, words, message):
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_the_command_alone_says_what_there_is(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f"    {name} " in said for name in NAMES) and said.count("\n  harness ") == 3


def test_every_command_helps_in_80_columns_with_examples(capsys, monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    for name in NAMES:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        said = capsys.readouterr().out
        about, _, examples = said.partition("examples:\n")
        assert examples.count("harness ") >= 3, name
        assert max(map(len, about.partition("\n\n")[2].splitlines()[2:])) <= 80, name


def test_options_of_several_values_take_words_in_every_command():
    """``-t a b`` as well as ``-t a -t b``; of names also ``-t a,b``."""
    (commands,) = [each for each in parser()._actions if each.nargs == argparse.PARSER]
    several = {
        (name, action.option_strings[-1]): action
        for name, command in commands.choices.items()
        for action in command._actions
        if isinstance(action.default, list) or isinstance(action, arguments._Extend)
    }
    assert {action.nargs for place, action in several.items() if place != ("check", "what")} == {"+"}
    split = {option for (_, option), action in several.items() if isinstance(action, arguments._Extend)}
    assert split == {"--method", "--task", "--seed", "--columns", "--only", "--track"}


@pytest.mark.parametrize(
    "words",
    ["gkd vcrd -t amc23 gsm8k", "gkd vcrd -t amc23,gsm8k", "-t amc23 gsm8k gkd vcrd", "gkd -t amc23 -t gsm8k vcrd",
     "--results R -t amc23 gsm8k gkd vcrd --json", "gkd --task=amc23 vcrd -t gsm8k"],
)  # fmt: skip
def test_rows_and_tasks_stand_in_any_order(words):
    found = parser(["compare"]).parse_args(["compare", *words.split()])
    assert (found.a, found.b, found.task) == ("gkd", "vcrd", ["amc23", "gsm8k"])


def test_a_seed_does_not_take_the_paper():
    found = parser(["reproduce"]).parse_args(["reproduce", "-s", "0", "1", "vcrd"])
    assert (found.paper, found.seed) == ("vcrd", [0, 1])
