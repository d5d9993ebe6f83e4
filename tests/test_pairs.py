"""Base student and instruct teacher: one vocabulary, two templates, two endings."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import families
import pytest
from families import FAMILIES
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.cli import main
from harness.errors import BadInput
from harness.models import files, pair
from harness.models.chat_format import TextCodec
from harness.rerun import command
from harness.types import Example, Prompt

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
ASKED = Prompt(user="How many?", plain="How many?\n", system="Be brief.")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """(student, teacher) folders by family, made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = families.pair(tmp_path_factory.mktemp("pair"), name)
        return made[name]

    return of


def agreed(folders, **settings):
    return pair.agree(*(files.locate(str(folder)) for folder in folders), **settings)


@pytest.fixture
def run(tiny_world, tmp_path, capsys):
    """Runs a method on a pair; returns (exit code, records, stderr)."""

    def go(folders, *words, method="kd"):
        recipe = tiny_world(
            "system = 'Be brief.'\n[training]\nsteps = 2\nbatch = 2\nmax_tokens = 256\n"
            "[rollout]\nmax_new_tokens = 5\n[teacher_text]\nmax_new_tokens = 5\n",
            models=folders,
        )
        results = ["--results", str(tmp_path / "results"), "--json"]
        names = [word for name in method.split() for word in ("--method", name)]
        code = main(["run", *names, "--task", PARITY, "--recipe", str(recipe), *results, *words])
        said = capsys.readouterr()
        return code, json.loads(said.out).get("records") if code == 0 else None, said.err

    return go


@pytest.mark.parametrize("name", FAMILIES)
def test_the_student_is_asked_and_ended_as_the_teacher(pairs, name):
    family, folders = FAMILIES[name], pairs(name)
    found = agreed(folders)
    student, teacher = (TextCodec(files.load_tokenizer(model)) for model in (found.student, found.teacher))
    assert student.render(ASKED) == teacher.render(ASKED)
    assert "Be brief." in student.render(ASKED)
    assert student.encode(student.render(ASKED)) == teacher.encode(teacher.render(ASKED))
    assert student.tokenizer.decode([student.end_id]) == family.end == student.tokenizer.eos_token
    assert found.teacher.format is None and not found.warnings
    assert found.words == len(student.tokenizer)
    card = dict(found.card)
    assert card["system_turn"] == family.system and card["chat_template"] == "teacher"
    assert set(card["ends"].split()) == {family.end, family.eos, family.base_eos}


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_is_learnt_as_the_template_writes_it(pairs, name):
    """A teacher expects its own spaces, line breaks and empty thoughts around an answer."""
    codec = TextCodec(files.load_tokenizer(agreed(pairs(name)).student))
    assert codec.frame == families.FRAMES.get(name, ("", ""))
    prompt, response, _ = codec.example_ids(Example("1", Prompt(user="How many?", plain=""), "Four.\n- all"))
    turns = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Four.\n- all"}]
    whole = codec.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert whole[: len(prompt) + len(response)] == [*prompt, *response] and response[-1] == codec.end_id
    own = "<think>\nAll.\n</think>\n\nFour."
    assert codec.tokenizer.decode(codec.answer_ids(Prompt(user="How many?", plain=""), own)).count("<think>") == 1


def test_the_frame_of_an_answer_is_another_training(pairs, run):
    records = [run(pairs(name), method="sft")[1][0] for name in ("mistral", "gemma")]
    assert [record["spec"].get("answer_frame") for record in records] == [[" ", ""], None]


def test_a_template_that_asks_for_the_day_is_given_one(pairs, tmp_path, monkeypatch):
    """Asked tomorrow, a model would read another prompt under the same protocol."""
    folder = shutil.copytree(pairs("llama3")[1], tmp_path / "dated")
    today = '{%- set day = strftime_now("%d %b %Y") if strftime_now is defined else "" %}'
    (folder / "chat_template.jinja").write_text(today + "Today Date: {{ day }}\n" + FAMILIES["llama3"].template)
    found = agreed((pairs("llama3")[0], folder))
    for model in (found.student, found.teacher, files.locate(str(folder))):
        assert TextCodec(files.load_tokenizer(model)).render(ASKED).startswith("Today Date: 26 Jul 2024\n")
    assert not found.warnings and found.teacher.format is None


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_kd_and_gkd_train_and_the_student_stops_where_it_was_taught(pairs, run, name, tmp_path):
    family, folders = FAMILIES[name], pairs(name)
    code, records, said = run(folders, method="kd gkd sft")
    assert code == 0, said
    assert f"{family.end}'" in said  # the first training example is shown with its end
    for record in records:
        assert record["convention"]["chat_template"] == "teacher"
        assert record["spec"]["student"].get("format", {}).get("end", family.end) == family.end
        folder = tmp_path / "results/work/trained" / record["training_id"]
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert tokenizer.eos_token == family.end
        assert tokenizer.chat_template == family.template
        ends = model.generation_config.eos_token_id
        known = tokenizer.convert_tokens_to_ids([family.end, family.base_eos, family.eos])
        assert ends[0] == known[0] and set(ends) == set(known)
        # It stops at each of the endings: a head that always says one of them ends every text at once.
        for end in ends:
            model.lm_head.weight.data.zero_()
            model.lm_head.weight.data[end] = 1e3 * model.model.norm.weight.data.sign()
            ids = tokenizer("x", return_tensors="pt")
            made = model.generate(**ids, max_new_tokens=8, do_sample=False)
            assert made.shape[1] - ids["input_ids"].shape[1] <= 8


def test_endings_that_only_the_generation_config_lists_are_kept(pairs, tmp_path):
    """As Llama 3 and Gemma list them. The saved student stops at each of them, and at the one that it learnt first."""
    base, instruct = (shutil.copytree(folder, tmp_path / folder.name) for folder in pairs("llama3"))
    ids = AutoTokenizer.from_pretrained(base).convert_tokens_to_ids(["<|end_of_text|>", "<|eot_id|>"])
    (instruct / "generation_config.json").write_text(json.dumps({"eos_token_id": [ids[0], 7, ids[1], 9999]}))
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [11]}))
    found = agreed((base, instruct))
    assert found.student.format.stops == (ids[1], 7, 11, ids[0])
    assert files.load_model(found.student).generation_config.eos_token_id == [ids[1], 7, 11, ids[0]]


def test_an_equal_pair_stays_as_it_comes(pairs, models):
    _, instruct = pairs("qwen2.5")
    for folders in (models, (instruct, instruct)):
        found = agreed(folders)
        assert found.student.format is None and found.teacher.format is None and not found.notes and not found.warnings
        assert "format" not in found.student.identity()


def test_plain_models_with_two_endings_end_as_the_teacher(models, tmp_path):
    for side in range(2):
        made = AutoTokenizer.from_pretrained(models[side])
        made.add_special_tokens({"additional_special_tokens": ["<done>"]})
        made.eos_token = "<done>" if side else "<eos>"
        folder = tmp_path / str(side)
        folder.mkdir()
        for file in models[side].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        made.save_pretrained(folder)
    found = agreed((tmp_path / "0", tmp_path / "1"))
    assert files.load_tokenizer(found.student).eos_token == "<done>"
    assert dict(found.card)["ends"] == "<done> <eos>" and dict(found.card)["chat_template"] == "none"


@pytest.mark.parametrize("template, scored", [("student", "student"), ("none", "none")])
def test_a_teacher_that_scores_a_foreign_format_is_warned_of(pairs, template, scored):
    found = agreed(pairs("qwen2.5"), template=template)
    assert found.teacher.format is not None
    assert len(found.warnings) == 1 and f"models.template={scored}" in found.warnings[0]
    assert "not its own" in found.warnings[0]


def test_equal_endings_and_other_templates_are_no_silent_case(pairs, tmp_path):
    """Each side with a template of its own: the teacher is asked in its own, and another choice is warned of."""
    family = FAMILIES["qwen2.5"]
    other = replace(family, base_template=family.base_template, base_eos="<|im_end|>")
    student = families.model(tmp_path / "student", other, instruct=False, seed=2, width=288)
    _, teacher = pairs("qwen2.5")
    found = agreed((student, teacher))
    assert found.student.format is not None and not found.warnings and found.notes
    assert agreed((student, teacher), template="student").warnings


def test_a_template_from_a_file(pairs, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] ")
    found = agreed(pairs("llama3"), template=str(path))
    assert (
        TextCodec(files.load_tokenizer(found.student)).render(ASKED)
        == "[system] Be brief.\n[user] How many?\n[assistant] "
    )
    assert dict(found.card)["chat_template"] == "mine.jinja"


@pytest.mark.parametrize(
    "source, message",
    [
        ("{% for m in messages %}", "cannot render a user's turn"),
        ("{{ raise_exception('never') }}", "cannot render a user's turn: never"),
        ("hello", "leaves out the user's text"),
    ],
)
def test_a_template_that_renders_no_question_is_refused(pairs, tmp_path, source, message):
    path = tmp_path / "bad.jinja"
    path.write_text(source)
    with pytest.raises(BadInput, match=message):
        agreed(pairs("llama3"), template=str(path))


def test_a_template_file_that_is_missing_is_refused(pairs):
    with pytest.raises(BadInput, match="give teacher, student, none, or a Jinja file"):
        agreed(pairs("llama3"), template="teachr")


def test_the_thinking_switch_is_written_into_the_template(pairs):
    found = agreed(pairs("qwen3"), thinking=False)
    codec = TextCodec(files.load_tokenizer(found.student))
    assert codec.render(ASKED).endswith("<think>\n\n</think>\n\n") and not codec.thinks
    assert dict(found.card)["thinking"] is False
    assert not agreed(pairs("qwen3")).notes[0].startswith("thinking")
    with pytest.raises(BadInput, match="has no enable_thinking switch"):
        agreed(pairs("llama3"), thinking=True)


def test_a_system_turn_that_a_template_drops_is_merged_into_the_users():
    made = families.tokenizer(FAMILIES["mistral"], instruct=True)
    made.chat_template = "{% for m in messages if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% endfor %}"
    assert TextCodec(made).render(ASKED) == "[INST] Be brief.\n\nHow many? [/INST]"


def test_tokens_added_behind_the_others_are_cut(tmp_path):
    family = FAMILIES["llama3"]
    student = families.model(tmp_path / "s", family, instruct=False, seed=0, width=288, more=("<extra_a>", "<extra_b>"))
    teacher = families.model(tmp_path / "t", family, instruct=True, seed=1, width=272)
    found = agreed((student, teacher))
    assert found.words == len(files.load_tokenizer(found.teacher))
    assert len(files.load_tokenizer(found.student)) == found.words + 2


def with_words(folder: Path, words: list[str], merges=()) -> Path:
    """The tokenizer of a folder with more ordinary tokens behind its own."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    for i, word in enumerate(words, len(AutoTokenizer.from_pretrained(folder))):
        content["model"]["vocab"][word] = i
    content["model"]["merges"] = [list(pair) for pair in merges]
    path.write_text(json.dumps(content), "utf-8")
    return folder


def test_names_that_fill_a_vocabulary_are_cut_and_words_are_not(models, tmp_path):
    """As converters to GGUF fill it. A token that some text is cut into makes another mapping of text."""
    for name, words, merges in (("filled", ["[PAD258]", "[PAD259]"], ()), ("merged", ["ab"], [("a", "b")])):
        shutil.copytree(models[0], tmp_path / name)
        with_words(tmp_path / name, words, merges)
    found = agreed((tmp_path / "filled", models[1]))
    assert found.words == 258 == len(files.load_tokenizer(found.teacher))
    assert agreed((models[0], tmp_path / "filled")).words == 258
    for pair_of in ((tmp_path / "merged", models[1]), (models[0], tmp_path / "merged")):
        with pytest.raises(BadInput, match="1 tokens differ"):
            agreed(pair_of)


def test_a_pair_with_a_vocabulary_cut_trains(tmp_path, run):
    family = FAMILIES["llama3"]
    student = families.model(tmp_path / "s", family, instruct=False, seed=0, width=288, more=("<extra_a>", "<extra_b>"))
    teacher = families.model(tmp_path / "t", family, instruct=True, seed=1, width=266)
    code, records, said = run((student, teacher), method="kd gkd")
    assert code == 0, said
    assert len(records) == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "kd gkd", "seqkd", "skd"])
def test_text_of_tokens_that_only_one_side_has_is_trained_on(tmp_path, run, monkeypatch, method):
    """A token, the padding included, for which the teacher has no row is written in pieces or replaced."""
    family = FAMILIES["llama3"]
    student = families.model(tmp_path / "s", family, instruct=False, seed=0, width=288, more=("<a>", "<b>"))
    made = AutoTokenizer.from_pretrained(student)
    made.pad_token = "<b>"
    made.save_pretrained(student)
    teacher = families.model(tmp_path / "t", family, instruct=True, seed=1, width=263)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": f"{i} <a>", "response": "x <b>" * i + "."}) + "\n" for i in range(4))
    )
    code, _, said = run(
        (student, teacher), "--set", f"data.prompts={prompts}", "--set", f"data.labelled={prompts}", method=method
    )
    assert code == 0, said
    assert "the vocabularies have 265 and 263 ids; the first 263 are compared" in said


def test_ids_beyond_the_shared_ones_are_written_in_pieces():
    made = families.tokenizer(FAMILIES["llama3"], instruct=True, more=("<a>",))
    whole, cut = TextCodec(made), TextCodec(made, len(made) - 1)
    text = "x <a> y<a>"
    assert max(whole.encode(text)) == len(made) - 1 > max(cut.encode(text))
    assert made.decode(cut.encode(text)) == text
    assert made.decode(cut.response_ids((), text, ended=True)) == text + "<|eot_id|>"
    assert cut.encode("no such token") == whole.encode("no such token")


def test_reserved_tokens_with_other_names_do_not_matter(tmp_path):
    """As fine-tunes of Llama 3 rename them; what the format writes must still be the same token on both sides."""
    family = FAMILIES["llama3"]
    for name, last in (("s", "<|reserved_special_token_0|>"), ("t", "<|tool|>")):
        families.model(
            tmp_path / name, replace(family, tokens=(last, *family.tokens)), instruct=name == "t", seed=0, width=288
        )
    found = agreed((tmp_path / "s", tmp_path / "t"))
    assert found.words == len(files.load_tokenizer(found.student))
    assert any("1 special tokens have one id and two names" in line for line in found.notes)


def test_a_teacher_that_renamed_the_tokens_of_its_turns_is_asked_without_them(tmp_path, run):
    """As DeepSeek-R1's distillations of Qwen renamed them: text maps to the same ids, a chat does not."""
    qwen = FAMILIES["qwen2.5"]
    names = {"<|endoftext|>": "<｜end▁of▁sentence｜>", "<|im_start|>": "<｜User｜>", "<|im_end|>": "<｜Assistant｜>"}
    end = names["<|endoftext|>"]
    template = (
        "{%- for m in messages %}{%- if m.role == 'assistant' %}"
        "{{ '<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>' }}"
        "{%- else %}{{ '<｜User｜>' + m.content }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{%- endif %}"
    )
    r1 = replace(qwen, tokens=tuple(names.values()), eos=end, template=template, end=end)
    student = families.model(tmp_path / "s", qwen, instruct=False, seed=0, width=288)
    teacher = families.model(tmp_path / "t", r1, instruct=True, seed=1, width=288)
    code, _, said = run((student, teacher))
    assert code == 2 and "which they do not share" in said and "models.template=none" in said and "seqkd" in said
    code, records, said = run((student, teacher), "--set", "models.template=none")
    assert code == 0, said
    assert records[0]["convention"]["chat_template"] == "none" and "not its own" in said


def test_vocabularies_that_differ_inside_are_refused(tmp_path, run):
    student = families.model(tmp_path / "s", FAMILIES["llama3"], instruct=False, seed=0, width=288)
    other = replace(FAMILIES["llama3"], tokens=tuple(reversed(FAMILIES["llama3"].tokens)))
    teacher = families.model(tmp_path / "t", other, instruct=True, seed=1, width=272)
    code, _, said = run((student, teacher))
    assert (
        code == 2
        and "tokens differ" in said
        and "pair of one family, or a method that needs no common ids (gold, " in said
    )


def test_models_of_two_families_exchange_texts(pairs, run):
    student, teacher = pairs("llama3")[0], pairs("qwen2.5")[1]
    code, _, said = run((student, teacher), method="seqkd")
    assert code == 0, said
    assert "reads texts in its own tokens" in said


@pytest.mark.parametrize("setting", ["models.template=student", "models.template=none"])
def test_a_record_in_another_format_is_planned_again(pairs, run, tmp_path, tiny_world, setting):
    folders = pairs("qwen2.5")
    code, records, said = run(folders, "--set", setting)
    assert code == 0, said
    given = command.Replacements(
        task=PARITY, recipe=str(tmp_path / "tiny.toml"), student=str(folders[0]), teacher=str(folders[1])
    )
    found = command.find(records[0], tmp_path / "again", given)
    assert found.same_training, found.differs
    assert command.NAME.fullmatch("owner/name@main/model.Q4_1.gguf") and not command.NAME.fullmatch("a/b/c")


def test_the_untrained_student_is_asked_as_it_comes(pairs, run):
    code, records, said = run(pairs("deepseek-coder"), method="untouched kd")
    assert code == 0, said
    untouched, trained = records
    assert "### Instruction" not in untouched["first_prompt"] and "### Instruction" in trained["first_prompt"]
    assert untouched["protocol"]["hash"] != trained["protocol"]["hash"]


def test_a_dry_run_judges_a_pair_without_weights(pairs, run, tmp_path):
    """Configuration and tokenizer files are enough to refuse a pair."""
    bare = []
    for folder in (pairs("llama3")[0], pairs("qwen2.5")[1]):
        copy = tmp_path / f"bare{len(bare)}"
        copy.mkdir()
        for file in folder.iterdir():
            if file.suffix != ".safetensors":
                (copy / file.name).write_bytes(file.read_bytes())
        bare.append(copy)
    code, _, said = run(tuple(bare), "--dry-run")
    assert code == 2 and "do not match" in said and "<|im_end|>" in said
    good = []
    for folder in pairs("llama3"):
        copy = tmp_path / f"good{len(good)}"
        copy.mkdir()
        for file in folder.iterdir():
            if file.suffix != ".safetensors":
                (copy / file.name).write_bytes(file.read_bytes())
        good.append(copy)
    code, _, said = run(tuple(good), "--dry-run")
    assert code == 0, said
    assert run(tuple(good))[0] == 2
