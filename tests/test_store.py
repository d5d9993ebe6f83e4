"""Records: sealed, append-only, one file each; what is damaged is named and left out."""

import copy
import gzip
import json
import multiprocessing
import os
import shutil
import sys

import jsonschema
import pytest
from sample_records import make_record, make_rows

from harness.errors import BadInput, RunFailed
from harness.records import examined as examined_module
from harness.records import store as store_module
from harness.records.record import (
    content_hash,
    examine,
    fingerprint,
    identity_of,
    label,
    load,
    misfit,
    off_scale,
    run_id,
    schema,
    validate,
)
from harness.records.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def rewrite(path, **changes):
    """A record file changed by hand."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- form and identity ---------------------------------------------------------------------------------------


def test_the_published_schema_is_itself_valid():
    jsonschema.Draft202012Validator.check_schema(schema())


def test_a_stored_record_fits_the_published_schema(store):
    path = store.add(make_record(), make_rows())
    jsonschema.validate(json.loads(path.read_text()), schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("score", 1.2),
        ("score", "0.5"),
        ("interval", [0.1]),
        ("kind", "reported"),
        ("surprise", 1),
        ("seed", True),
    ],
)
def test_a_record_out_of_form_is_refused_before_anything_is_written(store, field, value):
    with pytest.raises(RunFailed, match=field):
        store.add(make_record(**{field: value}), make_rows())
    assert not store.root.exists()


def test_a_score_that_is_no_number_is_refused(store):
    with pytest.raises(RunFailed, match="not finite"):
        store.add(make_record(score=float("nan")), make_rows())


def test_the_quick_check_agrees_with_the_schema_on_types_and_required_keys(store):
    record = load(store.add(make_record(), make_rows()))
    validator = jsonschema.Draft202012Validator(schema())
    mutants = []
    for key in record:
        mutants.append({k: v for k, v in record.items() if k != key})
        for wrong in (None, True, "text", 7, [], {}):
            mutants.append(record | {key: wrong})
            if isinstance(record[key], dict):
                mutants += [record | {key: record[key] | {inner: wrong}} for inner in record[key]]
    checked = 0
    for mutant in mutants:
        keywords = {error.validator for error in validator.iter_errors(mutant)}
        if keywords & {"type", "required", "minItems", "minimum", "maximum", "pattern", "minLength", "enum"}:
            assert misfit(mutant, schema()) or off_scale(mutant), mutant
            checked += 1
        else:
            assert (misfit(mutant, schema()) or off_scale(mutant)) is None
    assert checked > 100


def test_identity_does_not_hang_on_the_order_of_keys():
    assert identity_of({"a": 1, "b": [1, 2]}, {"n": 3}) == identity_of({"b": [1, 2], "a": 1}, {"n": 3})
    assert identity_of({"a": 1}, {"n": 3}) != identity_of({"a": 1}, {"n": 4})


def test_run_ids_name_method_variant_task_seed_identity_and_attempt():
    method = {"name": "vcrd", "variant": None}
    assert run_id(method, "humaneval@micro", 0, "1a2b3c4d5e") == "vcrd-humaneval@micro-s0-1a2b3c4d"
    again = run_id(method | {"variant": "shuffled"}, "aime24", 3, "1a2b3c4d5e", attempt=2)
    assert again == "vcrd@shuffled-aime24-s3-1a2b3c4d-r2"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("lm-eval:gsm8k/cot", "lm-eval_gsm8k_cot"),
        ("../../x", "__.._x"),
        ("a\\b\n", "a_b_"),
        ("ж" * 99, "_" * 60),
    ],
)
def test_labels_are_safe_as_file_names(name, safe):
    assert label(name) == safe


# -- writing -------------------------------------------------------------------------------------------------


def test_what_was_added_is_found_and_read_back(store):
    rows = make_rows()
    rows[0]["text"] = "π\u2028 next line, lone surrogate \ud800"
    record = make_record()
    path = store.add(record, rows)
    found = store.find(record["identity"])
    assert found == load(path) == store.get(record["run_id"]) == store.get(path)
    assert {key: found[key] for key in record} == record
    assert found["content_sha256"] == content_hash(found)
    assert store.completions(found) == rows
    assert found["completions"]["file"] == f"completions/{record['run_id']}.jsonl"
    assert path == store.path_of(found)
    assert store.all() == ([found], [])
    assert store.find("0" * 64) is None


def test_tuples_are_stored_as_lists(store):
    path = store.add(make_record(interval=(0.1, 0.9)), make_rows())
    assert load(path)["interval"] == [0.1, 0.9]


def test_a_hostile_task_name_stays_inside_the_store(store):
    record = make_record(task="lm-eval:../../etc/passwd")
    path = store.add(record, make_rows())
    assert path.resolve().is_relative_to(store.records_dir.resolve())
    assert store.completions(store.get(record["run_id"])) == make_rows()


def test_an_existing_record_is_never_overwritten(store):
    first = store.add(make_record(), make_rows())
    before = first.read_bytes()
    second = store.add(make_record(score=0.0), make_rows((0.0,)))
    assert second == first
    assert first.read_bytes() == before
    assert store.completions(load(first)) == make_rows()


def test_the_latest_attempt_is_found_and_names_what_it_supersedes(store):
    record = make_record()
    assert store.next_attempt(record["identity"]) == (0, None)
    store.add(record, make_rows())
    assert store.next_attempt(record["identity"]) == (1, record["run_id"])
    repeated = make_record(attempt=1, supersedes=record["run_id"])
    store.add(repeated, make_rows())
    assert store.find(record["identity"])["run_id"] == repeated["run_id"]
    assert store.next_attempt(record["identity"]) == (2, repeated["run_id"])
    assert store.get(record["run_id"])["attempt"] == 0


def _add_in_process(root, score, barrier, queue):
    barrier.wait(timeout=60)
    path = Store(root).add(make_record(score=score), make_rows((score,)))
    queue.put((score, str(path)))


def test_two_processes_adding_one_run_agree_on_one_record(store):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_add_in_process, args=(store.root, s, barrier, queue)) for s in (0.0, 1.0)]
    for worker in workers:
        worker.start()
    paths = {queue.get(timeout=60)[1] for _ in workers}
    for worker in workers:
        worker.join(timeout=60)
    assert len(paths) == 1
    (record,), warnings = store.all()
    assert warnings == []
    assert store.completions(record)[0]["score"] == record["score"]


@pytest.mark.parametrize("survivors", [0, 1])
def test_an_interrupt_leaves_no_half_record_and_the_next_call_goes_on(store, monkeypatch, survivors):
    replace, done = os.replace, []

    def interrupted(source, target):
        if len(done) == survivors:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(store_module.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.add(make_record(), make_rows((0.0,)))
    monkeypatch.undo()
    assert store.all() == ([], [])
    assert not list(store.root.rglob("*.tmp"))
    path = store.add(make_record(), make_rows())
    assert store.completions(load(path)) == make_rows()


def test_a_full_disk_is_one_line(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "replace", full)
    with pytest.raises(RunFailed, match="No space left"):
        store.add(make_record(), make_rows())


# -- places that cannot be written ---------------------------------------------------------------------------


def test_checking_a_place_leaves_nothing_behind(tmp_path):
    Store(tmp_path / "new" / "results").check_writable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "results", "results/deeper"])
def test_a_file_where_the_results_folder_should_be(tmp_path, below):
    (tmp_path / "taken").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        Store(tmp_path / "taken" / below).check_writable()


@pytest.mark.parametrize("target", ["link", "nowhere"])
def test_a_link_that_leads_nowhere_where_the_results_folder_should_be(tmp_path, target):
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(BadInput, match="cannot be written"):
        Store(tmp_path / "link").check_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(BadInput, match="Permission denied"):
        Store(tmp_path / "results").check_writable()


# -- damage --------------------------------------------------------------------------------------------------


def _deep() -> str:
    return "[" * (sys.getrecursionlimit() * 200)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not JSON"),
        (b"{\n  half", "line 2"),
        (b"\xff\xfe", "UTF-8"),
        (b"[1, 2]", "not a record"),
        (b'{"hello": 1}', "no schema_version"),
        (b'{"schema_version": 99}', "schema version 99"),
        (b'{"schema_version": 1}', "run_id is missing"),
        (_deep().encode(), "not JSON"),
    ],
)
def test_a_damaged_file_is_named_and_left_out(store, content, complaint):
    store.add(make_record(), make_rows())
    bad = store.records_dir / "humaneval@micro" / "broken.json"
    bad.write_bytes(content)
    records, (warning,) = store.all()
    assert len(records) == 1
    assert str(bad) in warning
    assert complaint in warning
    with pytest.raises(BadInput, match=r"broken\.json"):
        store.get(bad)


@pytest.mark.parametrize("change", [{"score": 0.99}, {"content_sha256": "0" * 64}, {"score": float("nan")}])
def test_an_edit_by_hand_shows(store, change):
    record = make_record()
    path = store.add(record, make_rows())
    rewrite(path, **change)
    records, (warning,) = store.all()
    assert records == []
    assert str(path) in warning
    assert "edited" in warning or "no finite number" in warning
    with pytest.raises(BadInput, match=r"edited|no finite number"):
        store.find(record["identity"])
    assert store.next_attempt(record["identity"]) == (1, record["run_id"])


def test_a_reformatted_file_is_still_the_same_record(store):
    path = store.add(make_record(), make_rows())
    before = load(path)
    rewrite(path)
    assert load(path) == before


def test_a_folder_and_a_dangling_link_among_the_records(store):
    path = store.add(make_record(), make_rows())
    (path.parent / "folder.json").mkdir()
    (path.parent / "gone.json").symlink_to(path.parent / "nowhere.json")
    records, warnings = store.all()
    assert len(records) == 1
    assert len(warnings) == 2


def test_a_copy_of_a_record_is_left_out_by_name(store):
    record = make_record()
    path = store.add(record, make_rows())
    for name in ("0 copy.json", f"{path.stem} copy.json", "../0/copy.json"):  # before and behind the original
        copied = (path.parent / name).resolve()
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes(path.read_bytes())
        found, (warning,) = store.all()
        assert found == [load(path)] == [store.find(record["identity"])]
        assert str(copied) in warning and str(path) in warning and "left out" in warning
        copied.unlink()


def test_of_two_run_ids_of_one_identity_and_attempt_the_second_is_left_out(store):
    record = make_record()
    first = store.add(record, make_rows())
    second = store.add(record | {"run_id": "z-other"}, make_rows())
    (found,), (warning,) = store.all()
    assert found["run_id"] == record["run_id"] and first.name in warning and second.name in warning
    later = store.add(make_record(attempt=1), make_rows())
    assert len(store.all()[0]) == 2 and store.find(record["identity"]) == load(later)


def test_records_without_completions_are_kept_and_named(store):
    paths = [store.add(make_record(seed=seed), make_rows()) for seed in range(7)]
    for path in paths[1:]:
        (store.root / load(path)["completions"]["file"]).unlink()
    found, (warning,) = store.all()
    assert len(found) == 7 and "completions are missing" in warning and "and 1 more" in warning
    assert paths[1].stem in warning and paths[0].stem not in warning


# -- what was examined before --------------------------------------------------------------------------------


@pytest.fixture
def examined(store, monkeypatch):
    """A store of two records that were examined and noted; ``again()`` reads it without opening what is known."""
    monkeypatch.setattr(examined_module, "KEPT_FROM", 1)
    monkeypatch.setattr(examined_module, "SETTLED_S", 0.0)
    paths = [store.add(make_record(seed=seed), make_rows()) for seed in (0, 1)]
    assert len(store.all()[0]) == 2

    def again(expected):
        with monkeypatch.context() as patch:
            calls = []
            patch.setattr(store_module, "examine", lambda path, inside: (calls.append(path), examine(path, inside))[1])
            found, warnings = store.all()
            assert len(calls) == expected
        return found, warnings

    return store, paths, again


def test_a_file_that_did_not_change_is_not_examined_twice(examined):
    _, paths, again = examined
    assert again(0) == ([load(path) for path in paths], [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: rewrite(path, score=0.99),
        lambda path: path.write_text(path.read_text().replace("0.75", "0.99")),  # of the same size
        lambda path: os.utime(path.with_name(path.name), ns=(1, path.stat().st_mtime_ns)) or rewrite(path, score=0.99),
    ],
)
def test_a_record_that_changed_is_examined_again(examined, damage):
    _, paths, again = examined
    damage(paths[0])
    found, (warning,) = again(1)
    assert [record["run_id"] for record in found] == [paths[1].stem] and "edited" in warning


def test_times_that_were_set_back_do_not_hide_a_change(examined):
    _, paths, again = examined
    was = paths[0].stat()
    text = paths[0].read_text()
    with paths[0].open("r+") as file:
        file.write(text.replace("0.75", "0.99"))
    os.utime(paths[0], ns=(was.st_atime_ns, was.st_mtime_ns))
    assert paths[0].stat().st_size == was.st_size and paths[0].stat().st_mtime_ns == was.st_mtime_ns
    found, (warning,) = again(1)
    assert len(found) == 1 and "edited" in warning


def test_completions_that_changed_leave_their_record_out(examined):
    store, paths, again = examined
    file = store.root / load(paths[0])["completions"]["file"]
    file.write_text(file.read_text().replace("answer 0", "answer 9"))
    found, (warning,) = again(0)
    assert [record["run_id"] for record in found] == [paths[1].stem] and "sha256 differs" in warning


@pytest.mark.parametrize("content", [b"", b"[" * 1000, b"[]", b'{"form": "x"}', b'{"files": {"a": 1}}', b"\xff"])
def test_damaged_knowledge_is_no_knowledge(examined, content):
    store, paths, again = examined
    (store.root / "work/examined.json").write_bytes(content)
    assert again(2) == ([load(path) for path in paths], [])


def test_knowledge_from_another_folder_or_other_rules_does_not_count(examined, tmp_path, monkeypatch):
    store, paths, again = examined
    moved = Store(tmp_path / "moved")
    shutil.copytree(store.root, moved.root, copy_function=shutil.copy2)
    rewrite(moved.records_dir / paths[0].relative_to(store.records_dir), score=0.99)
    assert len(moved.all()[0]) == 1
    monkeypatch.setattr(store_module, "form", lambda: "of another version")
    again(2)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(store, monkeypatch):
    monkeypatch.setattr(examined_module, "KEPT_FROM", 1)
    store.add(make_record(), make_rows())
    (store.root / "work").write_text("no folder")
    assert len(store.all()[0]) == 1


def test_changed_or_missing_completions_are_named(store):
    record = load(store.add(make_record(), make_rows()))
    file = store.root / record["completions"]["file"]
    file.write_text(file.read_text().replace("answer 0", "answer 9"))
    with pytest.raises(BadInput, match="differs"):
        store.completions(record)
    file.unlink()
    with pytest.raises(BadInput, match="No such file"):
        store.completions(record)


# -- asking by name ------------------------------------------------------------------------------------------


def test_records_are_had_by_any_beginning_that_is_unique(store):
    store.add(make_record("kd"), make_rows())
    store.add(make_record("kd", seed=1), make_rows())
    store.add(make_record("sft"), make_rows())
    assert store.get("sft")["method"]["name"] == "sft"
    with pytest.raises(BadInput, match="beginning of 2 run ids"):
        store.get("kd")
    assert store.get("kd-humaneval@micro-s1")["seed"] == 1


@pytest.mark.parametrize("name", ["nobody", "*", "[k", "no/such.json", "x" * 5000])
def test_an_unknown_record_is_one_line(store, name):
    with pytest.raises(BadInput):
        store.get(name)
    store.add(make_record("kd"), make_rows())
    with pytest.raises(BadInput):
        store.get(name)


def test_validation_names_the_place():
    record = copy.deepcopy(make_record())
    record["cost"]["steps"] = "ten"
    sealed = {
        "schema_version": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "completions": {"file": "f", "sha256": fingerprint(1), "n": 1},
        "content_sha256": fingerprint(2),
    }
    with pytest.raises(RunFailed, match=r"\$\.cost\.steps"):
        validate(record | sealed)


def test_packed_completions_are_read_as_the_plain_ones_were(store):
    store.add(make_record(), make_rows())
    (record,), _ = store.all()
    plain = store.completions_file(record)
    content, found = plain.read_bytes(), store.completions(record)
    before, after = store.pack()
    packed = store.completions_file(record)
    assert (before, after) == (len(content), packed.stat().st_size) and packed.name == f"{plain.name}.gz"
    assert not plain.exists() and store.completions(record) == found and store.all() == ([record], [])
    assert store.pack() == (0, 0)

    kept = packed.read_bytes()
    packed.unlink()
    plain.write_bytes(content)
    store.pack()
    assert packed.read_bytes() == kept  # no date in it
    plain.write_bytes(content)  # interrupted between the two: the plain one counts, and packing goes on
    assert store.completions_file(record) == plain and store.pack()[0] == len(content) and not plain.exists()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda raw: raw[:-9], "not a complete gzip file"),
        (lambda raw: b"", "sha256 differs"),
        (lambda raw: gzip.decompress(raw), "not a complete gzip file"),  # plain under the packed name
        (lambda raw: gzip.compress(gzip.decompress(raw) + b"\n"), "sha256 differs"),
        (lambda raw: gzip.compress(raw), "sha256 differs"),
    ],
)
def test_damaged_packed_completions_leave_their_record_out(store, damage, fault):
    store.add(make_record(), make_rows())
    (record,), _ = store.all()
    store.pack()
    path = store.completions_file(record)
    path.write_bytes(damage(path.read_bytes()))
    found, (warning,) = store.all()
    assert found == [] and path.name in warning and fault in warning


def test_packed_completions_are_never_read_outside_the_folder(store, tmp_path):
    store.add(make_record(), make_rows())
    (record,), _ = store.all()
    store.pack()
    path = store.completions_file(record)
    elsewhere = tmp_path / "elsewhere.gz"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    found, (warning,) = store.all()
    assert found == [] and "leads out of the folder" in warning
