"""The facts of a trained student: sealed, of one form, and of the training that asks for them."""

import hashlib
import json

import pytest

from harness.errors import BadInput
from harness.records import work_folder as students

COST = dict.fromkeys(students._COST, 1)
ROW = {"step": 1, "on_policy": 0.0, "buffer_age": 0.0, "loss": float("nan")}
FACTS = {"spec": {"seed": 0, "sizes": (1, 2)}, "cost": COST, "warnings": ["w"], "curve": [ROW], "signal": {}}


def folder(tmp_path, *, sealed=True, **changes):
    """A folder as a training writes it, with the changes of a stranger, sealed again or not."""
    (tmp_path / "config.json").write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    facts = {**FACTS, "files": {"config.json": digest}} | changes
    facts |= {students.SEAL: students._seal(facts)} if sealed else {}
    (tmp_path / students.FACTS).write_text(json.dumps(facts))
    return tmp_path


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "of an older version"])
def test_facts_come_back_as_they_were(tmp_path, sealed):
    found = students.facts_of(folder(tmp_path, sealed=sealed), FACTS["spec"])
    assert found["cost"] == COST and students.SEAL not in found and found["spec"]["sizes"] == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"cost": {}},
        {"cost": dict.fromkeys(COST, "many")},
        {"cost": dict.fromkeys(COST, -5)},
        {"cost": dict.fromkeys(COST, float("nan"))},
        {"warnings": [5]},
        {"curve": [1]},
        {"curve": [{"step": "a"}]},
        {"signal": [1]},
        {"weights": "heavy"},
        {"before": [5]},
        {"files": {}},
        {"files": {"config.json": 5}},
    ],
    ids=lambda change: str(change)[:40],
)
def test_facts_of_another_form_are_refused_even_where_they_are_sealed(tmp_path, change):
    with pytest.raises(BadInput, match=r"training.json is not as a training writes it \(it\..*; delete "):
        students.facts_of(folder(tmp_path, **change))


@pytest.mark.parametrize("name", ["../outside.json", "/dev/zero", "a\0b", "n" * 5000, "\ud800"])
def test_a_name_in_the_facts_leads_nowhere(tmp_path, name):
    (tmp_path / "outside.json").write_text("{}")
    (tmp_path / "student").mkdir()
    made = folder(tmp_path / "student")
    facts = json.loads((made / students.FACTS).read_text())
    facts["files"][name] = facts["files"]["config.json"]
    (made / students.FACTS).write_text(json.dumps(facts | {students.SEAL: students._seal(facts)}))
    with pytest.raises(BadInput, match="is missing or was changed after training"):
        students.facts_of(made)


def test_the_student_of_another_training_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds the student of another training"):
        students.facts_of(folder(tmp_path), {**FACTS["spec"], "seed": 1})
