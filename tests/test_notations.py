"""The suite of answers in other notations: its size, its form, and what the check makes of it."""

import json
from collections import Counter

import pytest

from harness.cli import main
from harness.errors import BadInput
from harness.evaluation import notations
from harness.evaluation.benchmarks import open_task
from harness.grading.maths.task import Gold, Judged
from harness.micro import world

KINDS = (  # noqa: SIM905 (words read best as words)
    "assignments bases boxes complex constants decimals decorated equations fractions integers intervals radicals sets "
    "text times tuples units"
).split()


def case(answer, right, gold="8"):
    return notations.Case("made", Gold(gold), answer, f"$\\boxed{{{answer}}}$", right, "" if right else "another value")


def test_every_kind_has_accepted_and_refused_cases_in_balance():
    counted = Counter((c.kind, c.right) for c in notations.cases())
    assert sorted({kind for kind, _ in counted}) == KINDS
    for kind in KINDS:
        assert counted[kind, True] >= 50 and counted[kind, False] >= 50
        assert 0.4 <= counted[kind, True] / counted[kind, False] <= 2.5


def test_every_refused_case_says_why_and_no_case_stands_in_two_places():
    every = notations.cases()
    assert all(c.right or c.why for c in every)
    twice = [key for key, n in Counter((c.gold, c.text) for c in every).items() if n > 1]
    contradicting = {(c.gold, c.text) for c in every if c.right} & {(c.gold, c.text) for c in every if not c.right}
    assert not contradicting and len(twice) < 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[gold]\n", "not readable as TOML"),
        ("[[gold]]\ntext='1'\nright=['1','1']\n[gold.wrong]\n", "'1' is listed twice under the gold '1'"),
        ("[[gold]]\ntext='1'\nright=['1']\n[gold.wrong]\n'sign'=['1']\n", "'1' is listed twice"),
        ("[[gold]]\ntext='1'\nrigth=['1']\n", "unknown key 'rigth'"),
        ("[[gold]]\ntext='1'\nright=['1']\n", "gold 1 has no 'wrong'"),
        ("whole=true\n", "no [[gold]]"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "made.toml").write_text(text, "utf-8")
    with pytest.raises(BadInput) as error:
        notations.cases(tmp_path)
    assert words in str(error.value) and "made.toml" in str(error.value) and "\n" not in str(error.value)


def test_frames_and_whole_texts(tmp_path):
    (tmp_path / "made.toml").write_text(
        "frames=['<@>','$@$']\n[[gold]]\ntext='1'\nseveral=true\nright=['a']\n[gold.wrong]\n'sign'=['b']\n", "utf-8"
    )
    found = notations.cases(tmp_path)
    assert [(c.answer, c.right, c.why, c.gold.several) for c in found] == [
        ("<a>", True, "", True),
        ("$a$", True, "", True),
        ("<b>", False, "sign", True),
        ("$b$", False, "sign", True),
    ]
    assert found[0].text == "So the answer is $\\boxed{<a>}$."


def test_the_check_counts_by_kind_and_fails_in_one_line_a_case(monkeypatch, capsys):
    made = (case("8", True), case("9", False), case("4+4", True), case("8.5", False))
    monkeypatch.setattr(notations, "cases", lambda: made)
    monkeypatch.setattr(
        notations, "grade", lambda golds, texts: [Judged("4+4" not in t and "8" in t, t, "looked\nat") for t in texts]
    )
    assert main(["check", "--task", "notations", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["tasks"]
    assert found["golds"] == {"passed": 1, "total": 2} and found["traps"] == {"passed": 1, "total": 2}
    assert "made: accepted 1/2, refused 1/2" in found["notes"]
    assert main(["check", "--task", "notations"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("4+4 for 8 must pass: looked at" in line for line in lines) == 1
    assert sum("8.5 for 8 (another value) must fail: looked at" in line for line in lines) == 1


def test_a_sound_grader_is_green(monkeypatch, capsys):
    monkeypatch.setattr(notations, "cases", lambda: (case("8", True), case("9", False)))
    assert main(["check", "--task", "notations"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all green"


def test_a_case_takes_the_way_of_a_whole_task_and_leaves_the_task_as_it_was():
    task = open_task(world.ANY_ANSWER)
    before = list(task.items)
    wrong = notations.check_task(task, [case("8", True), case("9", False), case("9", True), case("08.0", False)])
    assert [(c.answer, c.right) for c, _ in wrong] == [("9", True), ("08.0", False)] and task.items == before


def test_the_sample_has_accepted_and_refused_ones_of_every_kind():
    found = notations.sample(notations.cases())
    assert {(c.kind, c.right) for c in found} == {(kind, right) for kind in KINDS for right in (True, False)}


def test_the_page_counts_what_failed():
    counts = notations.Counts()
    counts.add(case("8", True), True, "equals 8")
    counts.add(case("9", False), True, "equals 8")
    counts.add(case("7", False), False, "not compared", error=True)
    page = notations.page({"made": counts}, 1.0)
    assert "| made | 1 | 1 | 2 | 0 |" in page and "Graded wrongly: 2." in page
    assert "made: 9 for 8 (another value) must fail: equals 8" in page
