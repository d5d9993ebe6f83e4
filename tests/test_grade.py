"""Stored completions of every format are graded, whole or in part; nothing in a file is dropped or crashes."""

import gzip
import json
import random

import pytest

from harness.cli import main
from harness.errors import BadInput, RunFailed
from harness.evaluation import samples
from harness.evaluation.grade import grade
from harness.task import Data, Task
from harness.types import Problem, Prompt, Verdict

TEXTS = ("completion", "output", "code", "generation")


class Sums(Task):
    """Ids that are no positions: 'a7' is at 0, 'b3' and 'c9' follow."""

    name, version, family, metric = "sums", "1", "maths", "accuracy"

    def problems(self, rows):
        return [Problem(row["id"], Prompt(user=row["q"], plain=row["q"]), row["answer"]) for row in rows]

    def grade(self, problem, text):
        right = text.strip() == problem.reference
        return Verdict(problem.id, 0, float(right), "exact match", text.strip() or None)


class Programs(Sums):
    """A code task whose verdict tells the way a sample came: run as it is, or read as an answer."""

    family, metric = "code", "pass@1"
    samples_as = "evalplus"

    def grade(self, problem, text):
        return Verdict(problem.id, 0, 0.0, "read", text)

    def grade_programs(self, completions, programs):
        return [Verdict(c.problem_id, c.sample, 1.0, "run", p) for c, p in zip(completions, programs, strict=True)]


class Chats(Sums):
    family, metric = "instruction", "win_rate"
    samples_as = "alpaca_eval"


ROWS = [
    {"id": "a7", "q": "1 + 1 = ", "answer": "2"},
    {"id": "b3", "q": "2 + 2 = ", "answer": "4"},
    {"id": "c9", "q": "2 + 2 = ", "answer": "4"},
]


@pytest.fixture
def write(tmp_path):
    def lines(*rows, name="samples.jsonl"):
        path = tmp_path / name
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), "utf-8")
        return path

    return lines


def task(kind=Sums, world="real", rows=ROWS):
    return kind(Data(rows=rows, sha256="0" * 64, source="made up", world=world))


def seen(path, kind=Sums):
    return [(c.problem_id, c.sample, c.text) for c in samples.read(task(kind), path).completions]


def refusal(path, kind=Sums, world="real"):
    with pytest.raises(BadInput) as caught:
        samples.read(task(kind, world), path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Formats


def test_own_completions_keep_sample_tokens_and_finish(write):
    path = write(
        {"problem_id": "a7", "sample": 3, "text": "2", "tokens": 9, "finish": "length", "score": 1.0},
        {"problem_id": "a7", "text": "3"},
    )
    first, second = samples.read(task(), path).completions
    assert (first.sample, first.tokens, first.finish) == (3, 9, "length")
    assert (second.sample, second.tokens, second.finish) == (0, 0, "stop")


@pytest.mark.parametrize("key", ["problem_id", "unique_id", "id"])
@pytest.mark.parametrize("field", TEXTS)
def test_raw_outputs_are_found_by_id(write, key, field):
    assert seen(write({key: "b3", field: "4"}, {key: "a7", field: "2"})) == [("b3", 0, "4"), ("a7", 0, "2")]


def test_a_list_is_several_samples_and_rows_of_one_problem_are_numbered_on(write):
    path = write({"idx": 1, "code": ["4", "5"]}, {"idx": 0, "code": ["2"]}, {"idx": 1, "code": "6"})
    assert seen(path) == [("b3", 0, "4"), ("b3", 1, "5"), ("a7", 0, "2"), ("b3", 2, "6")]


def test_numbers_given_and_not_given_do_not_collide(write):
    path = write(
        {"problem_id": "a7", "sample": 0, "text": "x"},
        {"problem_id": "a7", "text": "y"},
        {"problem_id": "a7", "sample": 2, "text": "z"},
        {"problem_id": "a7", "text": "w"},
    )
    assert [sample for _, sample, _ in seen(path)] == [0, 1, 2, 3]


def test_integer_ids_and_written_positions_are_understood(write):
    numbered = task(rows=[{**row, "id": str(60 + i)} for i, row in enumerate(ROWS)])
    by_id = samples.read(numbered, write({"id": 61, "output": "4"})).completions
    by_idx = samples.read(numbered, write({"idx": "1", "output": "4"})).completions
    assert by_id == by_idx and by_id[0].problem_id == "61"


def test_an_id_goes_before_idx_and_a_contradiction_is_told(write):
    found = samples.read(task(), write({"id": "b3", "idx": 0, "output": "4"}, {"id": "a7", "idx": 999, "output": "2"}))
    assert [c.problem_id for c in found.completions] == ["b3", "a7"]
    assert any("2 of 2 rows have an idx that contradicts their id" in warning for warning in found.warnings)
    agreeing = samples.read(task(), write({"id": "b3", "idx": 1, "output": "4"}))
    assert not any("idx" in warning for warning in agreeing.warnings)


def test_idx_goes_before_a_foreign_id_and_that_is_told(write):
    found = samples.read(task(), write({"id": "run-1-17", "idx": 1, "output": "4"}))
    assert found.completions[0].problem_id == "b3"
    assert any("1 of 1 rows have an unknown id" in warning for warning in found.warnings)


def test_running_numbers_under_id_are_not_taken_for_problem_ids(write):
    numbered = task(rows=[{**row, "id": str(2 * i)} for i, row in enumerate(ROWS)])
    path = write(*({"id": i, "idx": i, "output": "4"} for i in range(3)))
    with pytest.raises(BadInput, match=r"samples.jsonl:3: id and idx name two problems .*samples.jsonl:2 names none"):
        samples.read(numbered, path)


def test_a_file_of_another_benchmark_is_noticed_by_its_questions(write):
    rows = [{"idx": i, "question": f"What is {i}?", "code": ["4"]} for i in range(3)]
    assert any(
        "3 of 3 rows quote another question" in warning for warning in samples.read(task(), write(*rows)).warnings
    )
    right = {"idx": 0, "question": " 1 + 1 =\n", "code": ["2"]}
    assert not any("question" in warning for warning in samples.read(task(), write(right)).warnings)


def test_alpaca_eval_outputs_are_found_by_instruction_duplicates_in_order(write, tmp_path):
    path = tmp_path / "model_outputs.json"
    rows = [("2 + 2 = ", "first"), ("1 + 1 = ", "other"), ("2 + 2 = ", "second"), ("2 + 2 = ", "third")]
    path.write_text(json.dumps([{"instruction": i, "output": o, "generator": "m"} for i, o in rows], indent=1))
    assert seen(path, Chats) == [("b3", 0, "first"), ("a7", 0, "other"), ("c9", 0, "second"), ("b3", 1, "third")]
    assert "item 1: sums has no instruction 'Who?'" in refusal(
        write(json.dumps([{"instruction": "Who?", "output": "I"}])), Chats
    )


def test_an_instruction_beside_an_id_does_not_matter_to_a_maths_task(write):
    assert seen(write({"id": "a7", "instruction": "Solve: 1 + 1", "output": "2"})) == [("a7", 0, "2")]


def test_a_solution_is_a_whole_program_and_a_completion_is_a_text(write):
    path = write(
        {"task_id": "a7", "solution": "x = 1", "completion": "ignored"},
        {"task_id": "a7", "completion": "5\n"},
        {"task_id": "b3", "completion": "Sure!\n```python\n4\n```"},
    )
    found = samples.read(task(Programs), path)
    assert found.programs == ["x = 1", None, None]
    assert [c.text for c in found.completions] == ["x = 1", "5\n", "Sure!\n```python\n4\n```"]


def test_solutions_run_as_they_are_and_completions_are_read(write, monkeypatch):
    monkeypatch.setattr("harness.evaluation.grade.open_task", lambda *_: task(Programs))
    path = write(
        {"task_id": "a7", "completion": "5"},
        {"task_id": "b3", "completion": "Here:\n```python\n4\n```"},
        {"task_id": "c9", "solution": "y = 1\0"},
        {"task_id": "c9", "solution": "y = 7"},
    )
    graded = grade("sums", path)
    assert [(v["reason"], v["extracted"]) for v in graded["verdicts"]] == [
        ("read", "5"),
        ("read", "Here:\n```python\n4\n```"),
        ("run", "y = 1\0"),
        ("run", "y = 7"),
    ]
    assert (graded["measures"]["run_as_they_are"], graded["measures"]["extracted"]) == (2, 2)


SOLUTION_ROWS = [  # (solution, score): EvalPlus' evaluator runs each as it is
    ("def {name}(xs):\n{body}", 1.0),
    ("import math\ndef {name}(xs):\n{body}\nprint({name}([1]))\n", 1.0),
    ("def {name}(xs):\n{body}\ndef broken(:\n", 0.0),
    ("Sure!\n```python\ndef {name}(xs):\n{body}\n```", 0.0),
    ("def {name}(xs):\n{body}\n<|im_end|>", 0.0),
    ("<think>a</think>def {name}(xs):\n{body}", 0.0),
]


@pytest.mark.parametrize(("form", "score"), SOLUTION_ROWS)
def test_nothing_of_a_solution_is_mended_and_a_completion_is(write, form, score):
    from harness.evaluation.benchmarks import open_task

    problem = open_task("humaneval@micro").items[0]
    facts = {"name": problem.reference.entry_point, "body": problem.reference.canonical_solution}
    text = form.format(**facts)
    assert grade("humaneval@micro", write({"task_id": problem.id, "solution": text}))["score"] == score
    read = grade("humaneval@micro", write({"task_id": problem.id, "completion": text}))
    assert read["score"] == 1.0
    if "<" in text:
        assert read["measures"]["texts_repaired"] == 1
        assert read["measures"].get("evalplus_reading", {"score": 1.0})["score"] in (0.0, 1.0)
        assert sum("were repaired" in warning for warning in read["warnings"]) == 1


def test_thoughts_are_left_out_counted_and_told(write):
    gold, other = amc_micro(2)
    right = f"\\boxed{{{gold.reference.text}}}"
    path = write(
        {"problem_id": gold.id, "text": f"<think>\\boxed{{1}}</think> {right}"},
        {"problem_id": gold.id, "text": f"{right} </think> no answer"},
        {"problem_id": other.id, "text": f"<think> \\boxed{{{other.reference.text}}}"},
    )
    graded = grade("amc23@micro", path)
    assert [v["score"] for v in graded["verdicts"]] == [1.0, 0.0, 0.0]
    assert graded["measures"]["thoughts"] == {"closed": 2, "never_closed": 1}
    assert any("3 of 3 texts begin with thinking" in w and "1 never end it" in w for w in graded["warnings"])
    assert "thoughts" not in grade("amc23@micro", write(*answers(2, 2)))["measures"]


def test_json_lists_gzip_byte_order_marks_and_blank_lines_are_read(tmp_path):
    rows = [{"id": "a7", "output": "2"}, {"id": "b3", "output": "4"}]
    expected = [("a7", 0, "2"), ("b3", 0, "4")]
    joined = "\n\n  \n".join(json.dumps(row) for row in rows) + "\r\n"
    for content in (
        json.dumps(rows).encode(),
        gzip.compress(joined.encode()),
        b"\xef\xbb\xbf" + joined.encode(),
        ("\n " + json.dumps(rows, indent=2)).encode(),
    ):
        path = tmp_path / "whatever.txt"
        path.write_bytes(content)
        assert seen(path) == expected


def test_odd_texts_survive(write):
    odd = ["\ud800", "\u2028\u0085\x0b", "\0", "👩‍🚀" * 3, "2" * 3_000_000, ""]
    path = write(*({"problem_id": "a7", "text": text} for text in odd))
    path.write_text(path.read_text() + json.dumps({"problem_id": "b3", "text": "a\u2028b"}, ensure_ascii=False))
    assert [text for _, _, text in seen(path)] == [*odd, "a\u2028b"]


# What is refused


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "samples.jsonl: holds no completions"),
        (("[]",), "samples.jsonl: holds no completions"),
        (({"id": "a7", "output": "2"}, '{"id": "a7", "outp'), ":2: is not JSON (Unterminated string"),
        (("", "[1]"), "item 1: expected a JSON object, found 1"),
        ((json.dumps("text"),), ":1: expected a JSON object, found 'text'"),
        (('[{"id": "a7",\n "output": }]',), ":2: is not JSON"),
        (({"id": "a7", "output": None},), ":1: needs problem_id with text; or problem_id or unique_id or id or idx"),
        (({"id": "a7", "output": "2"}, {"id": "b3"}), ":2: needs problem_id or unique_id or id or idx with completion"),
        (({"id": "a7", "output": "2"}, {"output": "4"}), ":2: needs problem_id"),
        (({},), "it has nothing"),
        (({"id": "a7", "output": "2"}, {"problem_id": "b3", "text": "4"}), ":2: has the format own completions, but "),
        (({"task_id": "a7", "completion": "2"},), ":1: needs problem_id with text"),
        (({"id": "z1", "output": "2"},), ":1: sums has no problem 'z1' (it has 'a7', 'b3', 'c9', …)"),
        (({"id": ["a7"], "output": "2"},), ":1: sums has no problem"),
        (({"idx": 3, "output": "2"},), ":1: idx 3 is not a position from 0 to 2 in sums"),
        (({"idx": -1, "output": "2"},), ":1: idx -1 is not a position"),
        (({"idx": True, "output": "2"},), ":1: idx True is not a position"),
        (({"id": "z1", "idx": 3, "output": "2"},), ":1: idx 3 is not a position"),
        (({"id": "a7", "output": []},), ":1: 'output' is an empty list"),
        (({"id": "a7", "output": ["2", 2]},), ":1: 'output' holds 2, not a text"),
        (({"id": "a7", "output": ["2", None]},), ":1: 'output' holds None, not a text"),
        (({"problem_id": "a7", "text": ["2"]},), ":1: 'text' holds a list, not a text"),
        (({"problem_id": "a7", "text": "2", "sample": -1},), ":1: 'sample' is -1, not a whole number"),
        (({"problem_id": "a7", "text": "2", "sample": 1.0},), ":1: 'sample' is 1.0, not a whole number"),
        (({"problem_id": "a7", "text": "2", "tokens": True},), ":1: 'tokens' is True, not a whole number"),
        (({"problem_id": "a7", "text": "2", "finish": "eos"},), ":1: 'finish' is 'eos', neither 'stop' nor 'length'"),
        (({"problem_id": "a7", "text": "2", "finish": ["stop"]},), ":1: 'finish' is a list"),
        (('{"id": "a7", "output": ' + "[" * 100_000,), ":1: is not readable JSON"),
        (('{"idx": ' + "9" * 5000 + ', "output": "2"}',), ":1: is not readable JSON"),
    ],
)
def test_a_bad_row_is_named_with_what_is_wrong(write, lines, message):
    assert message in refusal(write(*lines))


def test_a_repeated_sample_names_both_lines(write):
    row = {"problem_id": "a7", "sample": 0, "text": "2"}
    message = refusal(write(row, {"problem_id": "b3", "sample": 0, "text": "4"}, row))
    assert "samples.jsonl:3: repeats sample 0 of problem 'a7', which is at " in message
    assert message.endswith("samples.jsonl:1")


def test_files_that_cannot_be_read_are_named(tmp_path):
    for name, content, fault in (
        ("cut.gz", gzip.compress(b'{"id": "a7", "output": "2"}\n' * 50)[:-12], "is not a complete gzip file"),
        ("latin.jsonl", b'{"id": "a7", "output": "2"}\n{"id": "a7", "output": "\xe9"}\n', ":2: is not UTF-8"),
        ("wide.json", '[{"id": "a7"}]'.encode("utf-16"), ":1: is not UTF-8"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert fault in refusal(path)
    assert "No such file" in refusal(tmp_path / "absent.jsonl")
    assert "is a folder" in refusal(tmp_path)


def test_a_task_without_problems_is_no_task(write):
    with pytest.raises(BadInput, match=r"sums: its data .* has no rows"):
        samples.read(task(rows=[]), write({"id": "a7", "output": "2"}))


def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path):
    rng = random.Random(0)
    rows = [{"id": "a7", "idx": 0, "output": ["2", "\ud800"]}, {"id": "b3", "output": "4", "problem": None}]
    sound = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = tmp_path / "damaged.jsonl"
    outcomes = set()
    for _ in range(400):
        damaged = bytearray(sound)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(damaged))
            damaged[at : at + rng.randint(0, 3)] = rng.choice(
                [b"", b"\xff", b'"', b"{", b"]", b"null", b"1e999", b"\n", b",", bytes([rng.randrange(256)])]
            )
        path.write_bytes(bytes(damaged))
        try:
            samples.read(task(), path)
            outcomes.add("read")
        except BadInput as error:
            assert str(path) in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


# What the score is of


def test_partial_and_uneven_files_say_so(write):
    found = samples.read(task(), write({"id": "a7", "output": ["2", "3"]}, {"id": "b3", "output": "4"}))
    assert found.warnings == [
        "sums: graded 2 of 3 problems",
        "sums: 1 to 2 samples per problem; each problem counts the same",
    ]
    assert samples.read(task(), write(*({"idx": i, "output": "4"} for i in range(3)))).warnings == []


def amc_micro(n=150):
    from harness.evaluation.benchmarks import open_task

    return open_task("amc23@micro").items[:n]


def answers(n, right):
    """Boxed answers to the first ``n`` generated problems, of which the first ``right`` are right."""
    return [
        {"problem_id": p.id, "text": f"\\boxed{{{int(p.reference.text) + (i >= right)}}}"}
        for i, p in enumerate(amc_micro(n))
    ]


def test_the_command_prints_one_line_or_json_alone(write, capsys):
    path = write(*answers(8, right=6))
    assert main(["grade", "--task", "amc23@micro", "--samples", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("amc23@micro: 75.0  95 % ") and "6 of 8" in out and out.count("\n") == 1
    assert "warning: amc23@micro: graded 8 of 150 problems" in err
    assert main(["grade", "--task", "amc23@micro", "--samples", str(path), "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["task"] == "amc23@micro" and record["world"] == "micro" and record["metric"] == "accuracy"
    assert record["score"] == 0.75 and record["interval"][0] < 0.75 < record["interval"][1]
    assert record["counts"] == {"correct": 6, "total": 8, "errors": 0, "truncated": 0}
    assert (record["problems"], record["problems_total"]) == (8, 150)
    assert [v["score"] for v in record["verdicts"]] == [1.0] * 6 + [0.0] * 2


def test_a_surrogate_in_an_answer_is_printed_as_its_escape(write, capsys):
    path = write({"problem_id": amc_micro(1)[0].id, "text": "\\boxed{\ud800}"})
    assert main(["grade", "--task", "amc23@micro", "--samples", str(path), "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["verdicts"][0]["extracted"] == "\ud800" and record["score"] == 0.0


def test_truncated_completions_are_counted(write):
    rows = [row | {"finish": "length"} for row in answers(2, right=2)]
    graded = grade("amc23@micro", write(*rows))
    assert graded["counts"]["truncated"] == 2
    assert any("2 of 2 completions hit the length limit" in warning for warning in graded["warnings"])


def test_bad_samples_end_with_exit_code_2_and_one_line(write, tmp_path, capsys):
    for samples_file in (write("{", name="torn.jsonl"), tmp_path / "absent.jsonl"):
        assert main(["grade", "--task", "amc23@micro", "--samples", str(samples_file), "--json"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and str(samples_file) in err
    assert main(["grade", "--task", "amc32@micro", "--samples", str(write(*answers(1, 1)))]) == 2
    assert "amc23" in capsys.readouterr().err


def test_no_verdict_at_all_ends_with_exit_code_1(write, monkeypatch, capsys):
    class Unjudged(Chats):
        def grade(self, problem, text):
            return Verdict(problem.id, 0, 0.0, "the judge is away", error=True)

    monkeypatch.setattr("harness.evaluation.grade.open_task", lambda *_: task(Unjudged))
    path = write({"instruction": "1 + 1 = ", "output": "2"})
    with pytest.raises(RunFailed, match="the judge is away"):
        grade("sums", path)
    assert main(["grade", "--task", "sums", "--samples", str(path)]) == 1


def test_generated_instructions_have_their_own_judge(write):
    from harness.evaluation.benchmarks import open_task

    items = open_task("alpaca_eval@micro").items[:3]
    path = write(*({"instruction": p.prompt.user, "output": p.reference, "generator": "same"} for p in items))
    graded = grade("alpaca_eval@micro", path)
    assert graded["score"] == 0.5 and graded["counts"]["total"] == 3  # each against itself
    assert graded["measures"]["ties"] == 3


# Worlds


@pytest.fixture
def real_amc(tmp_path, monkeypatch):
    """Three problems in the place and form of the real file."""
    folder = tmp_path / "data" / "amc23"
    folder.mkdir(parents=True)
    rows = [{"id": i, "problem": f"What is {i}?", "answer": float(i)} for i in (0, 1, 3)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))


def test_a_bare_name_is_the_real_benchmark(write, real_amc):
    graded = grade("amc23", write({"idx": 2, "code": ["\\boxed{3}", "\\boxed{4}"]}))
    assert (graded["task"], graded["world"], graded["score"]) == ("amc23", "real", 0.5)
    assert graded["dataset"]["source"] == "unpinned amc23/test.jsonl"


def test_completions_of_the_other_world_are_recognised(write, real_amc):
    path = write(*answers(8, right=8))
    with pytest.raises(BadInput, match=r":3: amc23 has no problem .* pass --task amc23@micro"):
        grade("amc23", path)
    with pytest.raises(BadInput, match="pass --task sums@real"):
        samples.read(task(world="micro"), write({"problem_id": "z1", "text": "2"}))


def test_what_a_micro_run_stored_is_graded_in_the_micro_world(write, real_amc):
    rows = answers(2, right=1)  # ids 0 and 1 exist in both worlds
    path = write(*rows, name="kd-amc23@micro-s0-1a2b3c4d.jsonl")
    assert grade("amc23", path)["task"] == "amc23@micro" and grade("amc23", path)["score"] == 0.5
    with pytest.raises(BadInput, match="holds completions of the micro world, not of amc23"):
        grade("amc23@real", path)
    assert grade("amc23", write(*rows, name="kd-amc23-s12-1a2b3c4d-r1.jsonl"))["task"] == "amc23"


def test_real_instructions_need_a_judge(write, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "data" / "alpaca_eval" / "results" / "text_davinci_003"
    folder.mkdir(parents=True)
    asked = {"instruction": "Say yes.", "output": "Yes."}
    (folder / "model_outputs.json").write_text(json.dumps([asked]))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    path = write(json.dumps([{"instruction": "Say yes.", "output": "Yes, of course.", "generator": "m"}]))
    assert main(["grade", "--task", "alpaca_eval", "--samples", str(path)]) == 2
    assert "--judge" in capsys.readouterr().err
    assert main(["grade", "--task", "alpaca_eval", "--samples", str(path), "--judge", "longest"]) == 0
    assert capsys.readouterr().out.startswith("alpaca_eval: 100.0")


def test_the_tier_of_the_sandbox_is_recorded_and_a_lower_one_must_be_accepted(write, monkeypatch, capsys):
    from harness.sandbox import pool

    path = write({"problem_id": "Micro/10000", "text": "    return 1"})
    words = ["grade", "--task", "humaneval@micro", "--samples", str(path), "--json"]
    assert main(words) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["measures"]["sandbox"] == str(pool.tier())

    monkeypatch.setenv("HARNESS_SANDBOX", "")
    monkeypatch.setattr(pool, "_best_tier", lambda: pool.Tier("C", (), "no walls here"))
    assert main(words) == 2
    assert "this machine offers only sandbox tier C (limits); no walls here" in capsys.readouterr().err
    assert main([*words, "--sandbox", "C"]) == 0
    assert "tier C" in json.loads(capsys.readouterr().out)["records"][0]["measures"]["sandbox"]
