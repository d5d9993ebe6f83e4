"""Papers as data: what they report, checked and kept apart from what was measured; how their rows are reproduced."""

import dataclasses
import json
from pathlib import Path

import pytest
from sample_records import make_record, make_rows

import harness
from harness import recipe, registry
from harness.cli import main
from harness.errors import BadInput
from harness.estimate import shapes
from harness.estimate.resources import PUBLISHED, SHARE_TRAINING
from harness.leaderboard import equal_compute
from harness.models.files import locate
from harness.papers import paper_cost, printed_rows, reproduce, spec
from harness.papers.reproduce import ReproduceRequest, Reproduction
from harness.records import reported
from harness.records.store import Store

pytestmark = pytest.mark.usefixtures("no_hub")  # a dry run asks for configuration and tokenizer

ROOT = Path(__file__).parent.parent
PRINTED = {
    "humaneval": (44.5, 73, 164),
    "humanevalplus": (40.9, 67, 164),
    "humanevalplus-second-student": (64.0, 105, 164),
    "mbppplus": (62.7, 237, 378),
    "amc23": (35.0, 14, 40),
    "aime24": (13.3, 4, 30),
    "olympiadbench": (35.4, 239, 675),
    "olympiadbench-second-student": (24.7, 167, 675),
    "alpaca_eval": (76.02, 612, 805),
    "evol_instruct": (57.8, 126, 218),
}


# -- what papers report --------------------------------------------------------------------------------------


def test_vcrds_ten_public_cells_are_there():
    cells = reported.find("vcrd")["cells"]
    assert {c["id"]: (c["value"]["value"], c["count"]["value"], c["n"]["value"]) for c in cells} == PRINTED
    assert all(c["value"]["status"] == "known" and c["count"]["status"] == "deduced" for c in cells)
    assert all(c["student"]["status"] in ("deduced", "unknown") for c in cells)
    assert all(c["judge"]["status"] == "unknown" for c in cells if c["family"] == "instruction")


def test_every_file_passes_its_schema_and_names_known_tasks():
    found = reported.papers(ROOT / "results/micro")
    assert len(found) == 14 and {"distillm2", "vcrd"} <= {paper["id"] for paper in found}
    tasks = {entry.name for entry in registry.entries(registry.TASKS)}
    for paper in found:
        for cell in paper["cells"]:
            assert cell["task"] in tasks
            assert round(100 * cell["count"]["value"] / cell["n"]["value"], 1) == round(cell["value"]["value"], 1)


def test_the_error_of_a_printed_score_is_what_the_issue_says():
    assert reported.standard_error(reported.cell_of(reported.find("vcrd"), "aime24")) == pytest.approx(6.2, abs=0.05)
    with pytest.raises(BadInput, match="did you mean aime24"):
        reported.cell_of(reported.find("vcrd"), "aime25")


def broken(change):
    paper = json.loads((ROOT / "results/reported/vcrd.json").read_text("utf-8"))
    change(paper)
    return paper


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("kind"), "'kind' is a required property"),
        (lambda p: p.update(kind="measured"), "'reported' was expected"),
        (lambda p: p["cells"][0].pop("judge"), "'judge' is a required property"),
        (lambda p: p["cells"][0]["n"].update(status="sure"), "'sure' is not one of"),
        (lambda p: p["cells"][0]["value"].update(value=445), "445 is greater than the maximum"),
        (lambda p: p["cells"][0]["decoding"].update(status="unknown"), "is not of type 'null'"),
        (lambda p: p["cells"][0]["count"].update(value=99), "99 of 164 is 60.37, not 44.5"),
        (lambda p: p["cells"][0]["count"].update(value=999), "count 999 of n 164 is not possible"),
        (lambda p: p["cells"].append(p["cells"][0]), "is listed twice"),
        (lambda p: p.update(id="other"), "make the file's name and the id equal"),
    ],
)
def test_a_malformed_paper_is_one_line_and_exit_code_2(tmp_path, capsys, change, message):
    (tmp_path / "reported").mkdir()
    (tmp_path / "reported/vcrd.json").write_text(json.dumps(broken(change)))
    for words in (["table", "--reported"], ["show", "paper", "vcrd"], ["reproduce", "vcrd", "--dry-run"]):
        assert main([*words, "--results", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "vcrd.json" in error and message in error and error.count("\n") == 1


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"null"])
def test_what_is_no_paper_at_all_is_one_line(tmp_path, content):
    (tmp_path / "odd.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"odd\.json"):
        reported.load(tmp_path / "odd.json")


def test_show_paper_says_of_every_fact_how_it_is_known(capsys):
    assert main(["show", "paper", "vcrd"]) == 0
    text = capsys.readouterr().out
    assert "not measured here" in text and "[unknown: " in text and "[deduced: " in text and "reconstruction" in text
    assert main(["show", "paper", "vcrd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "reported"
    assert main(["show", "paper", "vcrt"]) == 2
    assert "did you mean vcrd" in capsys.readouterr().err


# -- beside what was measured --------------------------------------------------------------------------------


@pytest.fixture
def measured(tmp_path):
    store = Store(tmp_path / "results")
    for method, task, right in (("vcrd", "amc23", 12), ("kd", "amc23", 10), ("vcrd", "amc23@micro", 30)):
        scores = (1.0,) * right + (0.0,) * (40 - right)
        store.add(make_record(method, task=task, scores=scores), make_rows(scores))
    return store.root


def test_printed_values_stand_beside_ours_and_are_never_ranked(measured, capsys):
    assert main(["table", "--task", "amc23", "--reported", "--results", str(measured)]) == 0
    ours, theirs = capsys.readouterr().out.split("### Reported by papers, not measured here")
    assert "**30.0**" in ours and "35" not in ours.split("|")[4]
    assert "| vcrd: AMC23 | amc23 | 35 ±7.5 | 14/40 (deduced)" in theirs and "| 30.0 [" in theirs
    assert "HumanEval" not in theirs.split("distillm2: DistiLLM-2")[0]


def test_generated_problems_are_never_set_beside_a_printed_value(measured, capsys):
    assert main(["table", "--task", "amc23@micro", "--reported", "--results", str(measured)]) == 0
    assert "not measured here" in capsys.readouterr().out.split("vcrd: AMC23")[1].split("\n")[0]


def test_kind_separates_reported_rows_in_data(measured, capsys):
    assert main(["table", "--reported", "--json", "--results", str(measured)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"measured", "reported"}
    assert all(row["rank"] is None and row["low"] is None for row in rows if row["kind"] == "reported")
    assert main(["table", "--json", "--results", str(measured)]) == 0
    assert {row["kind"] for row in json.loads(capsys.readouterr().out)} == {"measured"}
    frame = harness.load_results(measured, reported=True)
    assert frame.groupby("kind").size().to_dict() == {"measured": 3, "reported": 16}
    assert set(harness.load_results(measured)["kind"]) == {"measured"}


def test_papers_can_be_asked_for_before_anything_was_measured(tmp_path, capsys):
    assert main(["table", "--reported", "--results", str(tmp_path), "--task", "aime24"]) == 0
    assert "13.3 ±6.2" in capsys.readouterr().out


# -- how their rows are reproduced ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", spec.names())
def test_every_hyper_parameter_of_a_shipped_paper_has_a_source(name):
    found = spec.load(name)
    paper = reported.find(found.reported)
    own = {cell for pair in found.pairs for cell in pair.cells}
    assert not own or own == {cell["id"] for cell in paper["cells"]}
    rows = [row for pair in found.pairs for row in printed_rows.printed_rows_of(pair, paper)]
    assert own or rows
    kind = registry.find(registry.METHODS, found.method.partition("@")[0])
    config = {field.name for field in dataclasses.fields(kind.Config)}
    run_only = spec.HOW_IT_RUNS
    for pair in found.pairs:
        for part in ("models", "training", "rollout", "teacher_text"):
            known = {f.name for f in dataclasses.fields(recipe.SECTIONS[part])} - run_only
            left = known - pair.facts[part].keys()
            assert pair.facts[part].keys() <= known | run_only and left <= {"steps", "epochs"} and len(left) <= 1
        assert pair.facts["data"].keys() >= {"prompts", "labelled", "prompt_field", "response_field"}
        assert pair.facts.get("method", {}).keys() == config
        assert all(fact.source for facts in pair.facts.values() for fact in facts.values())


def test_the_question_in_the_small_is_asked_of_enough():
    question = spec.load("vcrd").questions["micro"]
    assert len(question.arms) >= 8 and len(question.seeds) >= 5 and len(question.tasks) >= 2
    known = {entry.name for entry in registry.entries(registry.METHODS)}
    assert {arm.method.partition("@")[0] for arm in question.arms} <= known
    assert {"sft", "seqkd", "kd", "rkl", "gkd"} <= set(question.baselines)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('method = "vcrd"\nabout', "about", "method must be text"),
        ("[pair.maths]", "[pears.maths]", "did you mean pair"),
        ('{ value = 64, source = "assumed" }', "64", "write { value"),
        ("steps = { value = 1000,", 'steps = { value = "many",', "is not a whole number"),
        ("steps = { value", "stepz = { value", "did you mean steps"),
        ('target = "vcrd" ', 'target = "vcrt" ', "did you mean vcrd"),
        ('cells = ["amc23", "aime24", "olympiadbench"]', "", "needs cells"),
        ("seeds = [0, 1, 2, 3, 4]", "seeds = [0.5]", "must be a list of whole numbers"),
        ("[paper]", "[paper", "not TOML"),
        ("answer_tokens = {", "answer_tokenz = {", "did you mean answer_tokens"),
        ('device = { value = "A100-80GB", source = "assumed" }', "", "pair.maths: estimate lacks device"),
        ('device = { value = "A100-80GB"', 'device = { value = "A1000"', "estimate.device: unknown device 'A1000'"),
        ("prompts = { value = 7473", "prompts = { value = 0.5", "estimate.prompts: 0.5 is not a whole number from 1"),
        ('"Qwen/Qwen2-Math-1.5B"', '"Qwen/Qwen3-Nano"', "the shape of Qwen/Qwen3-Nano is not known"),
        (
            "prompts = { value = 7473",
            "shapes = { value = 3, source = '' }\nprompts = { value = 7473",
            "shapes: write {",
        ),
        (
            "prompts = { value = 7473",
            "shapes = { value = { 'a/b' = { hidden_size = 8 } }, source = '' }\nprompts = { value = 7473",
            "shapes: a/b lacks 'num_attention_heads' of its config.json",
        ),
        ('cells = ["amc23", "aime24"', 'cells = ["amc24", "aime24"', "did you mean"),
    ],
)
def test_a_malformed_paper_file_names_the_place(tmp_path, capsys, old, new, message):
    text = (ROOT / "harness/papers/vcrd.toml").read_text("utf-8")
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new))
    assert main(["reproduce", str(tmp_path / "mine.toml"), "--dry-run", "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vcrt"], "unknown paper 'vcrt'; did you mean vcrd"),
        (["amid"], "its reported cells are known (harness show paper amid), but no recipe file"),
        (["nowhere.toml"], "No such file"),
        (["vcrd", "--only", "amc24"], "unknown cell of paper vcrd 'amc24'; did you mean amc23"),
        (["vcrd", "--scale", "micro", "--only", "gsm8k"], "unknown task of the question 'gsm8k'"),
        (["vcrd", "--set", "method.beta=1"], "change a copy of it and give that"),
        (["vcrd", "--set", "training.stepz=1"], "did you mean steps"),
    ],
)
def test_reproduce_refuses_in_one_line(tmp_path, capsys, words, message):
    assert main(["reproduce", *words, "--dry-run", "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# -- what it would take --------------------------------------------------------------------------------------


def test_a_dry_run_of_the_paper_downloads_no_weights_and_states_what_it_assumes(tmp_path, capsys):
    assert main(["reproduce", "vcrd", "--dry-run", "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for word in (
        "student rollouts",
        "teacher forward",
        "device-hours",
        "GB of memory",
        "download Qwen/Qwen2.5-Math-7B",
    ):
        assert word in text
    assert "training.steps = 1000 (assumed)" in text and "models.student = " in text
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_follows_its_rules(tmp_path):
    found = spec.load("vcrd")
    wish = ReproduceRequest(only=["amc23"], results=tmp_path)
    (piece,) = paper_cost.estimates(Reproduction(found, wish, reported.find("vcrd")))
    by_name = {stage.stage: stage for stage in piece.stages}
    student, teacher = PUBLISHED["Qwen/Qwen2.5-Math-1.5B"], PUBLISHED["Qwen/Qwen2.5-Math-7B-Instruct"]
    trained, fast = 1000 * 64 * (150 + 350), 312e12 * SHARE_TRAINING
    passes = by_name["student forward and backward"]
    assert passes.tokens == by_name["teacher forward"].tokens == trained
    assert passes.flops == 3 * student.flops(trained, 250) and passes.seconds == pytest.approx(passes.flops / fast)
    assert by_name["student rollouts"].tokens == 1000 * 64 * 350 * 0.5
    assert by_name["teacher texts (shared)"].tokens == 7473 * 350
    assert by_name["evaluation"].tokens == 40 * 500
    # memory is that of the longest texts: activations of 4 x 1,024 tokens on top of states and teacher
    assert passes.memory > 16 * student.parameters + 2 * teacher.parameters + student.activation_bytes(4096, "bfloat16")
    assert piece.excess == "" and max(stage.memory for stage in piece.stages) < 80e9
    assert piece.downloads == {
        "Qwen/Qwen2.5-Math-1.5B": 2 * student.parameters,
        "Qwen/Qwen2.5-Math-7B-Instruct": 2 * teacher.parameters,
    }
    (three,) = paper_cost.estimates(
        Reproduction(found, dataclasses.replace(wish, seeds=[1, 2, 3]), reported.find("vcrd"))
    )
    assert paper_cost.totals([three])["trainings"] == 3
    thrice = {stage.stage: stage for stage in three.stages}
    assert thrice["student rollouts"].seconds == pytest.approx(3 * by_name["student rollouts"].seconds)
    assert thrice["teacher texts (shared)"] == by_name["teacher texts (shared)"]
    assert paper_cost.totals([piece, piece])["download_bytes"] == paper_cost.totals([piece])["download_bytes"]


def test_a_plan_that_overruns_the_device_is_told_before(tmp_path, capsys):
    words = ["reproduce", "vcrd", "--only", "amc23", "--dry-run", "--results", str(tmp_path)]
    assert main([*words, "--set", "training.micro_batch=64"]) == 0
    assert "would be refused: " in capsys.readouterr().out
    assert main([*words, "--set", "training.micro_batch=64", "--json"]) == 0
    (piece,) = json.loads(capsys.readouterr().out)["pieces"]
    assert "GB too little on A100-80GB; lower training.micro_batch from 64 to " in piece["excess"]


def test_a_model_of_any_shape_can_be_told(tmp_path, capsys):
    text = (ROOT / "harness/papers/vcrd.toml").read_text("utf-8").replace("Qwen/Qwen2-Math-1.5B", "some/model")
    shape = "{ hidden_size = 1536, num_hidden_layers = 28, num_attention_heads = 12, num_key_value_heads = 2, "
    shape += "intermediate_size = 8960, vocab_size = 151936 }"
    told = f'[shared.estimate]\nshapes = {{ value = {{ "some/model" = {shape} }}, source = "assumed: a guess" }}'
    (tmp_path / "mine.toml").write_text(text.replace("[shared.estimate]", told))
    words = ["--only", "olympiadbench-second-student", "--dry-run", "--results", str(tmp_path), "--json"]
    assert main(["reproduce", str(tmp_path / "mine.toml"), *words]) == 0
    (piece,) = json.loads(capsys.readouterr().out)["pieces"]
    assert piece["downloads"]["some/model"] == 2 * PUBLISHED["Qwen/Qwen2-Math-1.5B"].parameters
    assert any(line.startswith("estimate.shapes = ") and "a guess" in line for line in piece["assumed"])


# -- equal compute -------------------------------------------------------------------------------------------


def base(method, seconds, steps=100):
    records = []
    for seed, spent in enumerate(seconds):
        record = make_record(method, seed=seed, recipe={"training": {"steps": steps}})
        record["cost"] = record["cost"] | {"steps": steps, "seconds": spent}
        records.append(record)
    return records


def test_steps_follow_the_targets_cost_and_stay_as_first_decided(tmp_path):
    file = tmp_path / "a/budget.json"
    arms = {
        "sft": base("sft", [10.0, 11.0, 90.0]),  # the median forgets who waited for the shared texts
        "kd": base("kd", [31.0, 33.0, 32.0]),
        "dear": base("dear", [66.0, 66.0, 66.0]),
        "vcrd": base("vcrd", [33.0, 33.0, 33.0]),
        "vcrd@shuffled": base("vcrd", [99.0, 99.0, 99.0]),
    }
    found = reproduce.decide_budget(arms, "vcrd", "vcrd@shuffled", "seconds", file)
    assert found.steps == {"sft": 300, "dear": 50}  # the control always runs as long as its target
    slower = arms | {"sft": base("sft", [20.0, 20.0, 20.0])}
    assert reproduce.decide_budget(slower, "vcrd", "vcrd@shuffled", "seconds", file) == found
    other = arms | {"sft": base("sft", [20.0], steps=50)}
    assert reproduce.decide_budget(other, "vcrd", "vcrd@shuffled", "seconds", file).steps["sft"] == 82
    file.write_text("{}")
    with pytest.raises(BadInput, match="remove it to decide again"):
        reproduce.decide_budget(arms, "vcrd", "vcrd@shuffled", "seconds", file)


def test_operations_are_counted_from_the_models_own_files():
    """A record that counts no parameters has those of the shipped models' files."""
    student, teacher = (shapes.parameters(locate(f"micro:{side}")) for side in ("student", "teacher"))
    assert 1e5 < student < teacher < 1e6
    record = make_record("kd", student="micro:student") | {"teacher": "micro:teacher"}
    del record["parameters"]
    assert equal_compute.cost(record, "flops") == student * (6 * 2000 + 2 * 500) + 2 * teacher * 1000


@pytest.mark.parametrize(("value", "rounded"), [(1234, 1200), (87.6, 88), (3.2, 3), (0.2, 0), (999, 1000)])
def test_steps_have_two_significant_digits(value, rounded):
    assert reproduce.two_digits(value) == rounded
