"""One format: what a student is trained on is what it is asked, and where it is not, the run says so with the fix."""

import json

import families
import pytest
from conftest import byte_tokenizer
from families import FAMILIES

from harness.cli import main
from harness.errors import BadInput
from harness.models.chat_format import TextCodec
from harness.training_data import plain_prompts
from harness.types import Example, Prompt, Turn

ASKED = Prompt(user="2 + 2?", plain="Problem: 2 + 2?\nSolution:\n", system="Box it.")
PLAIN = "Problem: {prompt}\nSolution:\n"


def row(user="1 + 1?", **more) -> Prompt:
    return Prompt(user=user, plain=user, **more)


def written(prompt: Prompt, form: str = "{prompt}\n") -> Prompt:
    return plain_prompts.written([Example("1", prompt, "2")], form)[0].prompt


def test_question_and_answer_do_not_run_into_each_other():
    codec = TextCodec(byte_tokenizer())
    prompt, response, _ = codec.example_ids(Example("1", written(row(system="Box it.")), "two"))
    assert codec.tokenizer.decode(prompt) == "Box it.\n\n1 + 1?\n"
    assert codec.tokenizer.decode(response) == "two<eos>"
    assert written(row(), "Q: {prompt}\nA:").plain == "Q: 1 + 1?\nA:"


def test_a_conversation_keeps_its_roles():
    turns = (Turn("user", "Hi."), Turn("assistant", "Hello."))
    said = Prompt(user="Bye.", plain="User: Hi.\n\nAssistant: Hello.\n\nUser: Bye.\n\nAssistant:", history=turns)
    assert written(said).plain == said.plain


@pytest.mark.parametrize("form", ["", "Q:", "{prompt} {prompt}", "{question}"])
def test_a_form_without_one_place_for_the_prompt_is_refused(form):
    with pytest.raises(BadInput, match=r"data.plain=.* must contain \{prompt\} once"):
        written(row(), form)


@pytest.mark.parametrize(
    "trained, asked, said",
    [
        (written(row(), "Problem: {prompt}\nSolution:\n"), ASKED, None),
        (written(row()), Prompt(user="x", plain="x\n"), None),
        (written(row()), ASKED, r"but evaluated on the form 'Problem: {prompt}\nSolution:\n'; set data.plain"),
        (written(row()), Prompt(user="Write.", plain="def f():\n"), r"the task's own form of text, 'def f():\n'"),
        (written(row(system="A")), Prompt(user="x", plain="x\n"), r"'A\n\n{prompt}\n' but evaluated on the form '{pro"),
    ],
)  # fmt: skip
def test_two_plain_forms_are_told(trained, asked, said):
    found = list(plain_prompts.differences(trained, asked, TextCodec(byte_tokenizer())))
    assert (said in found[0]) if said else not found


@pytest.mark.parametrize(
    "trained, asked, said",
    [
        (row(system="Box it."), ASKED, None),
        (row(), Prompt(user="x", plain="y"), None),
        (row(), ASKED, "with no system turn but evaluated with the system turn 'Box it.'; set data.system='Box it.'"),
        (row(system="A"), Prompt(user="x", plain="y"), "'A' but evaluated with no system turn; remove data.system"),
        (row(), Prompt(user="x", plain="y", chat=False), "trained on chat turns but evaluated on plain text"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", ["qwen2.5", "gemma"])  # with a system turn, and without
def test_two_system_turns_are_told(family, trained, asked, said):
    codec = TextCodec(families.tokenizer(FAMILIES[family], instruct=True))
    found = list(plain_prompts.differences(trained, asked, codec))
    assert (said in found[0]) if said else not found


@pytest.fixture
def dry(tmp_path, monkeypatch, capsys):
    """A run of sft on three rows and one task of the micro world; returns what --json prints, and the error text."""

    def go(folders, *words, form="{prompt}\n", dry_run=True):
        rows = tmp_path / "rows.jsonl"
        rows.write_text("".join(json.dumps({"prompt": f"{i} + 1?", "response": f"{i + 1}"}) + "\n" for i in range(3)))
        recipe = tmp_path / "r.toml"
        recipe.write_text(
            f"[models]\nstudent = '{folders[0]}'\nteacher = '{folders[1]}'\n"
            f"[data]\nprompts = '{rows}'\nlabelled = '{rows}'\nplain = {json.dumps(form)}\n"
            "[training]\nsteps = 1\nbatch = 2\nmax_tokens = 128\n[evaluation]\nlimit = 2\nmax_new_tokens = 4\n"
        )
        results = ["--results", str(tmp_path / "results"), "--json"] + ["--dry-run"] * dry_run
        code = main(["run", "-m", "sft", "-t", "gsm8k@micro", "--recipe", str(recipe), *results, *words])
        said = capsys.readouterr()
        return (json.loads(said.out) if code == 0 else code), said.err

    return go


def trained(found) -> str:
    return found[0]["runs"][0]["training_id"]


def test_the_form_decides_the_training_of_a_plain_student_alone(dry, models, tmp_path):
    form = {"form": "{prompt} => "}
    assert trained(dry(models)) != trained(dry(models, **form))
    chats = [
        families.model(tmp_path / name, FAMILIES["llama3"], instruct=True, seed=i, width=272)
        for i, name in enumerate(("s", "t"))
    ]
    assert trained(dry(chats)) == trained(dry(chats, **form))
    code, said = dry(models, form="Q:")
    assert code == 2 and "must contain {prompt} once" in said


def test_a_run_warns_of_two_forms_and_records_it(dry, models):
    found, said = dry(models, dry_run=False)
    assert "the first training example is '0 + 1?\\n', answered '1<eos>'; an answer ends with <eos> (id 256)" in said
    told = [w for w in found["records"][0]["warnings"] if "trained on the form" in w]
    assert len(told) == 1 and told[0].startswith("gsm8k@micro: ") and f"warning: {told[0]}" in said
    found, said = dry(models, form=PLAIN, dry_run=False)
    assert not [w for w in found["records"][0]["warnings"] if "trained on the form" in w]


def test_the_first_training_prompt_is_guarded_like_a_task(dry, tmp_path):
    """Qwen2.5's template puts a system text of its own in front, in training as in evaluation."""
    folders = families.pair(tmp_path, "qwen2.5")
    found, _ = dry(folders)
    assert any(
        w.startswith("data.labelled: the chat template adds a system prompt of its own") for w in found["warnings"]
    )
    assert not any("system prompt of its own" in w for w in dry(folders, "--set", "data.system=Box it.")[0]["warnings"])


def test_a_template_without_a_system_turn_is_told(dry, tmp_path):
    _, said = dry(families.pair(tmp_path, "gemma"), "--set", "data.system=Box it.", dry_run=False)
    assert "the chat template has no system turn: its text goes in front of the user's first turn" in said
    assert "user\\nBox it.\\n\\n0 + 1?<end_of_turn>" in said
