"""Training data in the forms that people have it: what is read, and what is refused in one line with file and row."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
import torch
from conftest import byte_tokenizer
from hub_stub import serving
from pyarrow import parquet

from harness import recipe
from harness.cli import main
from harness.errors import BadInput
from harness.models.chat_format import TextCodec
from harness.plan import RunRequest, prepare
from harness.recipe import DataSources
from harness.records.store import Store
from harness.training.batching import TrainingSequence, collate
from harness.training.signals import SignalCache
from harness.training_data import examples, source
from harness.training_data.left_out import Room
from harness.types import Source, Turn

PUBLISHED = Path(__file__).parent.parent / "results/micro"
ASK, TELL = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
SYSTEM = {"role": "system", "content": "s"}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(path, labelled=True, **settings):
    return examples.read(str(path), DataSources(**settings), labelled=labelled).examples


def pairs(found):
    return [(e.id, e.prompt.system, [t["content"] for t in e.prompt.turns()], e.response, e.taught) for e in found]


# --- files ---------------------------------------------------------------------------------------------------------

ROWS = [{"prompt": "p1", "response": "r1"}, {"prompt": 'p2, "x"\nnext', "response": "r2"}]
TABLE = b'prompt,response\np1,r1\n"p2, ""x""\nnext",r2\n'


def as_parquet(rows, path):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


FILES = {
    "d.jsonl": lines(*ROWS),
    "d.JSONL": lines(*ROWS),
    "bom.jsonl": b"\xef\xbb\xbf" + lines(*ROWS),
    "blank.jsonl": lines(ROWS[0]) + b"\n\n" + lines(ROWS[1]),
    "list.json": json.dumps(ROWS, indent=2).encode(),
    "lines.json": lines(*ROWS),
    "d.jsonl.gz": gzip.compress(lines(*ROWS)),
    "list.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "d.csv": TABLE,
    "dos.csv": TABLE.replace(b"\nnext", b"@").replace(b"\n", b"\r\n").replace(b"@", b"\nnext"),
    "d.csv.gz": gzip.compress(TABLE),
    "d.tsv": b'prompt\tresponse\np1\tr1\n"p2, ""x""\nnext"\tr2\n',
}


@pytest.mark.parametrize("name", [*FILES, "d.parquet"])
def test_every_kind_of_file_gives_the_same_examples(name, tmp_path):
    path = tmp_path / name
    as_parquet(ROWS, path) if name == "d.parquet" else path.write_bytes(FILES[name])
    expected = [("1", None, ["p1"], "r1", 1), ("2", None, ['p2, "x"\nnext'], "r2", 1)]
    assert pairs(read(path)) == expected
    assert pairs(read(f"{path},first=1")) == expected[:1]
    assert [e.response for e in read(path, labelled=False)] == [None, None]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", lines(ROWS[0]) + b'{"prompt": "p', "a.jsonl:2: is not JSON"),
        ("a.jsonl", lines(ROWS[0]) + b"[1]\n", "a.jsonl:2: expected a JSON object"),
        ("a.jsonl", b"\xff\xfe", "is not UTF-8"),
        ("a.json", b"[1]", "row 1 is int, not a JSON object"),
        ("a.json", b'"x"', "expected a JSON list"),
        ("a.json", b"[]", "holds no rows"),
        ("a.jsonl", b"", "holds no rows"),
        ("a.csv", b"prompt,response\n", "holds no rows"),
        ("a.csv", b"prompt,response\np,r\np\n", "row 2 (line 3) has 1 cells, the first line 2"),
        ("a.csv", b'prompt,response\n"p,r\n', "row 1 (line 2) is not CSV"),
        ("a.csv", b"prompt,prompt\na,b\n", "names the column 'prompt' twice"),
        ("a.parquet", b"PAR1 and then nothing", "is not a readable parquet file"),
        ("a.jsonl.gz", b"not packed", "is not a complete gzip file"),
        ("a.txt", b"prompt", "is none of .json"),
        ("a.jsonl", lines({"prompt": 5, "response": "r"}), "row 1 holds a number under 'prompt', not text"),
        ("a.jsonl", lines({"prompt": "p", "response": {}}), "row 1 holds an object under 'response', not text"),
        ("a.jsonl", lines(ROWS[0], {}), "row 2 has no text under 'prompt'"),
        ("a.jsonl", lines(ROWS[0], {"prompt": "p"}), "row 2 has no text under 'response'"),
        ("a.jsonl", lines({"prompt": " \n", "response": "r"}), "row 1 has no text under 'prompt'; fix"),
        ("a.jsonl", lines({"text": "p"}), "no column of prompts (prompt, question, instruction, problem, query)"),
        ("a.jsonl", lines({"prompt": "p"}), "no column of responses"),
        ("a.jsonl", lines({"prompt": "p", "answer": "a", "solution": "s"}), "answer and solution are both possible"),
        ("a.jsonl", lines({"question": "p", "problem": "p", "answer": "s"}), "question and problem are both possible"),
        ("a.jsonl", lines({"prompt": "p", "messages": [ASK, TELL]}), "messages and prompt are both possible"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read(tmp_path / name)
    assert said in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.jsonl", "neither a file, nor a folder, nor a data set owner/name of the hub"),
        ("a/b/c", "neither a file, nor a folder"),
        ("gone.jsonl,split=train", "split is only for data sets of the hub"),
        ("owner/name,spilt=train", "unknown setting 'spilt'; did you mean split"),
        ("owner/name,first=0", "first=0 is not a whole number from 1 on"),
        ("owner/name,first=ten", "first=ten is not a whole number"),
        ("owner/name,split=", "split is empty"),
        ("micro:prompts,split=train", "split is only for data sets of the hub"),
        ("micro:nothing", "unknown split 'nothing'"),
        ("micro:instruction/nothing", "unknown split 'nothing'"),
        ("micro:maps/prompts", "unknown family or world 'maps'; did you mean maths"),
        ("micro:maths/code/prompts", "unknown split 'code/prompts'"),
    ],
)
def test_a_source_that_is_none_is_refused(name, said):
    with pytest.raises(BadInput) as caught:
        read(name)
    assert said in str(caught.value)


def test_a_file_may_have_commas_in_its_name(tmp_path):
    path = tmp_path / "a,first=1,b.jsonl"
    path.write_bytes(lines(*ROWS))
    assert len(read(path)) == 2


# --- columns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "settings", "expected"),
    [
        ({"prompt": "p", "completion": "c"}, {}, (None, ["p"], "c", 1)),
        ({"question": "p", "answer": "c", "level": 3}, {}, (None, ["p"], "c", 1)),
        ({"problem": "p", "solution": "c"}, {}, (None, ["p"], "c", 1)),
        ({"query": "p", "response": "c", "output": "other"}, {}, (None, ["p"], "c", 1)),
        ({"instruction": "p", "input": "i", "output": "c"}, {}, (None, ["p\n\ni"], "c", 1)),
        ({"instruction": "p", "input": "", "output": "c"}, {}, (None, ["p"], "c", 1)),
        ({"prompt": "p", "instruction": "x", "output": "c"}, {}, (None, ["p"], "c", 1)),
        ({"x": "p", "y": "c"}, {"prompt_field": "x", "response_field": "y"}, (None, ["p"], "c", 1)),
        ({"x": {"y": "p"}, "z": {"k": "c"}}, {"prompt_field": "x.y", "response_field": "z.k"}, (None, ["p"], "c", 1)),
        ({"prompt": "p", "messages": [ASK, TELL]}, {"messages_field": "messages"}, (None, ["q"], "a", 1)),
        ({"prompt": "p", "answer": "c", "messages": []}, {"prompt_field": "prompt"}, (None, ["p"], "c", 1)),
        ({"prompt": "p", "response": "c"}, {"system": "S"}, ("S", ["S", "p"], "c", 1)),
        ({"messages": [ASK, TELL]}, {}, (None, ["q"], "a", 1)),
        ({"messages": [SYSTEM, ASK, TELL]}, {"system": "S"}, ("s", ["s", "q"], "a", 1)),
        ({"messages": [ASK, TELL, ASK, TELL]}, {"system": "S"}, ("S", ["S", "q", "a", "q"], "a", 2)),
        ({"conversations": [HUMAN, GPT]}, {}, (None, ["q"], "a", 1)),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, TELL]}, {}, (None, ["q"], "a", 1)),
        ({"prompt": [SYSTEM, ASK], "completion": [TELL]}, {}, ("s", ["s", "q"], "a", 1)),
        ({"prompt": [ASK, TELL, ASK], "completion": "c"}, {}, (None, ["q", "a", "q"], "c", 1)),
        ({"prompt": [ASK], "completion": [TELL, ASK, TELL]}, {}, (None, ["q", "a", "q"], "a", 2)),
    ],
)  # fmt: skip
def test_columns_are_found_or_named(row, settings, expected, tmp_path):
    (tmp_path / "d.jsonl").write_bytes(lines(row))
    ((_, *found),) = pairs(read(tmp_path / "d.jsonl", **settings))
    assert tuple(found) == expected
    try:
        as_parquet([row], tmp_path / "d.parquet")
    except pyarrow.ArrowInvalid:  # turns of text and turns of parts cannot share a column
        return
    assert pairs(read(tmp_path / "d.parquet", **settings))[0][1:] == expected


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"messages": [ASK, TELL]}, ["q"]),
        ({"messages": [ASK]}, ["q"]),
        ({"messages": [SYSTEM, ASK, TELL, ASK, TELL]}, ["s", "q", "a", "q"]),
        ({"prompt": [ASK, TELL, ASK], "completion": [TELL]}, ["q", "a", "q"]),
    ],
)
def test_a_prompt_is_all_that_comes_before_the_last_answer(row, asked, tmp_path):
    (tmp_path / "d.jsonl").write_bytes(lines(row))
    ((_, _, found, response, _),) = pairs(read(tmp_path / "d.jsonl", labelled=False))
    assert found == asked and response is None


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([ASK], "ends with a turn of the user: no answer to learn"),
        ([], "has no turns under 'messages'"),
        ([SYSTEM], "has no turns under 'messages'"),
        ([TELL, ASK], "has a turn of the assistant under 'messages' instead of one of the user"),
        ([ASK, ASK, TELL], "has a turn of the user under 'messages' instead of one of the assistant"),
        ([ASK, SYSTEM, TELL], "has a turn of the system"),
        ([ASK, {"role": "tool", "content": "x"}], "has the role 'tool' in turn 2 under 'messages'"),
        ([ASK, {"role": "assistant", "content": ""}], "has no text in turn 2 under 'messages'"),
        ([ASK, {"role": "assistant", "content": None}], "has no text in turn 2"),
        ([ASK, {"role": "assistant"}], "has no text in turn 2"),
        ([ASK, {"role": "assistant", "content": 3}], "holds a number in turn 2"),
        ([ASK, {"role": "assistant", "content": [{"type": "image"}]}], "has a part that is not text in turn 2"),
        ([ASK, "a"], "holds text in turn 2 under 'messages', not an object with role and content"),
        ("hello", "holds text under 'messages', not a list of turns"),
    ],
)
def test_a_conversation_that_is_none_is_refused(turns, said, tmp_path):
    (tmp_path / "d.jsonl").write_bytes(lines({"messages": [ASK, TELL]}, {"messages": turns}))
    with pytest.raises(BadInput) as caught:
        read(tmp_path / "d.jsonl")
    assert "d.jsonl: row 2 " in str(caught.value) and said in str(caught.value)


PLAIN = {"instruction": "q", "output": "a"}


@pytest.mark.parametrize(
    ("row", "settings", "asked"),
    [
        (PLAIN | {"system": "s"}, {}, ["s", "q"]),
        (PLAIN | {"system_prompt": "s"}, {"system": "d"}, ["s", "q"]),
        (PLAIN | {"system": " "}, {"system": "d"}, ["d", "q"]),
        (PLAIN | {"system": "s"}, {"system_field": ""}, ["q"]),
        (PLAIN | {"persona": "s"}, {"system_field": "persona"}, ["s", "q"]),
        ({"conversations": [ASK, TELL], "system": "s"}, {}, ["s", "q"]),
        ({"messages": [SYSTEM, ASK, TELL], "system": "other"}, {}, ["s", "q"]),
        (PLAIN | {"history": [["q1", "a1"]], "system": "s"}, {}, ["s", "q1", "a1", "q"]),
        (PLAIN | {"history": []}, {}, ["q"]),
        ({"messages": json.dumps([ASK, TELL])}, {}, ["q"]),  # as a cell of CSV holds them
        ({"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}}, {}, ["q"]),  # a column of structs
    ],
)
def test_what_stands_beside_a_prompt_is_not_lost(row, settings, asked, tmp_path):
    (tmp_path / "d.jsonl").write_bytes(lines(row))
    ((_, system, found, response, taught),) = pairs(read(tmp_path / "d.jsonl", **settings))
    assert found == asked and response == "a" and taught == 1
    assert system == (asked[0] if len(asked) % 2 == 0 else None)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (PLAIN | {"system": 3}, "holds a number under 'system', not text (data.system_field)"),
        (PLAIN | {"system": "a", "system_prompt": "b"}, "system and system_prompt are both possible; set"),
        (PLAIN | {"history": [["q1"]]}, "has no pair of question and answer in place 1 under 'history'"),
        (PLAIN | {"history": "x"}, "holds text under 'history', not pairs of question and answer"),
        ({"prompt": [ASK], "answer": [ASK, TELL]}, "a whole conversation is named by data.messages_field=answer"),
        ({"messages": "[{"}, "holds text under 'messages', not a list of turns"),
    ],
)
def test_what_stands_beside_a_prompt_and_cannot_be_read_is_refused(row, said, tmp_path):
    (tmp_path / "d.jsonl").write_bytes(lines(row))
    with pytest.raises(BadInput) as caught:
        read(tmp_path / "d.jsonl")
    assert said in str(caught.value)


def test_settings_that_contradict_or_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "d.jsonl").write_bytes(lines({"prompt": "p", "response": "r"}))
    for settings, said in (
        ({"messages_field": "m", "prompt_field": "p"}, "remove the other two"),
        ({"prompt_field": "promt"}, "no column 'promt', only prompt, response; set data.prompt_field"),
        ({"response_field": "x.y"}, "no column 'x.y'"),
        ({"messages_field": "chat"}, "no column 'chat'"),
    ):
        with pytest.raises(BadInput, match=said):
            read(tmp_path / "d.jsonl", **settings)


def test_empty_rows_are_skipped_alike_by_all_methods_where_that_is_asked(tmp_path):
    rows = [{"prompt": "p1", "answer": "a"}, {"prompt": "p2", "answer": ""}, {"prompt": "", "answer": "a"}]
    (tmp_path / "d.jsonl").write_bytes(lines(*rows, {"prompt": "p4", "answer": "a"}))
    for labelled in (False, True):
        pool = examples.read(str(tmp_path / "d.jsonl"), DataSources(empty="skip"), labelled=labelled)
        assert [e.id for e in pool.examples] == ["1", "4"] and pool.facts["skipped"] == 2
        assert "2 empty rows skipped" in pool.description
    (tmp_path / "e.jsonl").write_bytes(lines({"prompt": ""}))
    with pytest.raises(BadInput, match="every row is empty"):
        read(tmp_path / "e.jsonl", labelled=False, empty="skip")


# --- folders and the hub -------------------------------------------------------------------------------------------


@pytest.fixture
def library(monkeypatch, tmp_path):
    """The datasets library with a cache of this test's own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def test_a_folder_of_save_to_disk(library, tmp_path):
    made = library.Dataset.from_list([{"messages": [ASK, TELL]}, {"messages": [SYSTEM, ASK, TELL]}])
    made.save_to_disk(str(tmp_path / "one"))
    assert [e.prompt.system for e in read(tmp_path / "one")] == [None, "s"]
    library.DatasetDict({"train": made, "dev": made.select([1])}).save_to_disk(str(tmp_path / "split"))
    assert len(read(tmp_path / "split")) == 2
    assert len(read(f"{tmp_path / 'split'},split=dev")) == 1
    with pytest.raises(BadInput, match="unknown split 'test'; did you mean"):
        read(f"{tmp_path / 'split'},split=test")
    (tmp_path / "one/data-00000-of-00001.arrow").write_bytes(b"torn")
    with pytest.raises(BadInput, match="cannot read the folder"):
        read(tmp_path / "one")


def test_a_folder_of_data_files(library, tmp_path):
    folder = tmp_path / "plain"
    (folder / "data").mkdir(parents=True)
    as_parquet([{"prompt": "p", "completion": "c"}] * 3, folder / "data/train-00000-of-00001.parquet")
    as_parquet([{"prompt": "t", "completion": "c"}] * 2, folder / "data/test-00000-of-00001.parquet")
    assert [len(read(f"{folder}{rest}")) for rest in ("", ",split=test", ",first=1")] == [3, 2, 1]
    (folder / "data/train-00000-of-00001.parquet").write_bytes(b"torn")
    with pytest.raises(BadInput, match="plain: the datasets library cannot read the folder"):
        read(folder)
    (tmp_path / "bare").mkdir()
    with pytest.raises(BadInput, match="cannot read the folder"):
        read(tmp_path / "bare")


def test_a_folder_that_is_no_folder_of_data_is_refused_before_it_is_walked(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MOST_ENTRIES", 20)
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text("")
    with pytest.raises(BadInput, match="more than 20 files; give the folder or the file of the data alone"):
        read(tmp_path)
    # Links that lead back into the folder are many folders.
    (tmp_path / "loop").mkdir()
    for name in "ab":
        (tmp_path / "loop" / name).symlink_to(".")
    with pytest.raises(BadInput, match="more than 20 files"):
        read(tmp_path / "loop")


HUB = """
import os, sys
from harness.errors import BadInput
from harness.recipe import DataSources
from harness.training_data import examples
for name in sys.argv[1:]:
    if name == "offline":
        os.environ["HF_HUB_OFFLINE"] = "1"
        continue
    try:
        pool = examples.read(name, DataSources(), labelled=True)
        print([e.prompt.user for e in pool.examples], pool.facts["split"], pool.facts["revision"][:3], pool.description)
    except BadInput as error:
        print(error)
"""


@pytest.mark.slow
def test_a_data_set_of_the_hub_at_a_revision_and_a_split(tmp_path):
    root = tmp_path / "hub"
    for commit, word in (("a" * 40, "old"), ("b" * 40, "new")):
        data = root / "lab/chats" / commit / "data"
        data.mkdir(parents=True)
        for split, n in (("train", 3), ("test", 2)):
            rows = [{"question": f"{word} {split} {i}", "answer": "a"} for i in range(n)]
            as_parquet(rows, data / f"{split}-00000-of-00001.parquet")
    old = f"lab/chats,revision={'a' * 40}"
    asked = ["lab/chats,first=2", f"{old},split=test", "lab/chats,split=dev", "lab/none"]
    asked += ["offline", f"{old},split=test", "lab/chats", f"lab/chats,revision={'c' * 40}"]
    with serving(root) as url:
        home = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", HUB, *asked]
        done = subprocess.run(command, env=os.environ | home, capture_output=True, text=True, timeout=120)
    newest, pinned, split, gone, cached, moving, absent = done.stdout.splitlines()
    assert newest.startswith("['new train 0', 'new train 1'] train bbb") and "pin it with revision=" in newest
    assert pinned.startswith("['old test 0', 'old test 1'] test aaa") and "pin it" not in pinned
    assert "unknown split 'dev'; did you mean test" in split
    assert "lab/none is neither a file nor a folder, and the hub did not deliver it" in gone
    # Without a hub: the commit that is asked for, though another one was read later, or a refusal.
    assert cached == pinned
    assert "HF_HUB_OFFLINE is set; give a folder, or a commit that is cached" in moving
    assert f"at {'c' * 12} is in no cache, and HF_HUB_OFFLINE is set" in absent


# --- the published micro world --------------------------------------------------------------------------------------


def test_the_micro_world_keeps_its_data_and_its_training_ids(tmp_path):
    """The hashes in the published records: an edit here would orphan them."""
    from harness.plan import RunRequest, prepare

    published, _ = Store(PUBLISHED).all()
    for method, pools in (("sft", ["labelled"]), ("kd", ["prompts"]), ("gkd", ["prompts"]), ("vcrd", ["prompts"])):
        plan = prepare(RunRequest([method], ["amc23"], results=tmp_path))
        spec = next(r["spec"] for r in published if r["training_id"] == plan.trainings[0].training_id)
        assert {n: f["sha256"] for n, f in plan.data.facts.items()} == {name: spec[name] for name in pools}
        assert not plan.data.warnings


def test_a_limit_bounds_every_pool_alike(tmp_path):
    plan = prepare(RunRequest(["distillm", "sft", "kd"], ["amc23"], settings=["data.limit=40"], results=tmp_path))
    assert [len(pool) for pool in (plan.data.prompts, plan.data.labelled, plan.data.validation)] == [40, 40, 40]


def test_every_shipped_recipe_reads_its_own_columns():
    for name in recipe.names():
        sources = recipe.load(name).data
        assert sources.empty in ("refuse", "skip") and not (sources.messages_field and sources.prompt_field)


# --- loss on the assistant's turns only -----------------------------------------------------------------------------

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
LATER = (  # writes an earlier answer otherwise than it is asked for
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}(earlier) {% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
)


def codec(template):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return TextCodec(tokenizer)


def talk(tmp_path, *turns, **settings):
    (tmp_path / "talk.jsonl").write_bytes(lines({"messages": list(turns)}))
    return read(tmp_path / "talk.jsonl", **settings)[0]


def learnt_text(speaker, example):
    """The texts of the learnt stretches."""
    prompt, response, learnt = speaker.example_ids(example)
    assert learnt is None or len(learnt) == len(response)
    stretches, before = [], False
    for token, is_learnt in zip(response, learnt or [True] * len(response), strict=True):
        if is_learnt:
            stretches += [] if before else [[]]
            stretches[-1].append(token)
        before = is_learnt
    return [speaker.tokenizer.decode(ids) for ids in stretches], prompt, response


@pytest.mark.parametrize("template", [CHATML, STRICT])
def test_of_a_conversation_the_answers_and_their_ends_are_learnt_and_nothing_else(template, tmp_path):
    first, second = {"role": "assistant", "content": "one\n\ntwo"}, {"role": "assistant", "content": " é"}
    speaker = codec(template)
    example = talk(tmp_path, SYSTEM, ASK, first, {"role": "user", "content": "more"}, second)
    texts, prompt, response = learnt_text(speaker, example)
    assert texts == ["one\n\ntwo<|im_end|>", " é<|im_end|>"]
    # What is trained on is the conversation as the template writes it, up to the end of the last answer.
    turns = [t._asdict() for t in example.prompt.history] + [
        {"role": "user", "content": "more"}, {"role": "assistant", "content": " é"}]  # fmt: skip
    if template is STRICT:
        turns[0]["content"] = "s\n\nq"
    else:
        turns.insert(0, SYSTEM)
    whole = speaker.tokenizer.apply_chat_template(turns, tokenize=False).removesuffix("\n")
    assert speaker.tokenizer.decode([*prompt, *response]) == whole
    assert speaker.tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")


def test_a_prompt_of_several_turns_teaches_its_completion_alone(tmp_path):
    (tmp_path / "d.jsonl").write_bytes(lines({"prompt": [ASK, TELL, ASK], "completion": [{**TELL, "content": "z"}]}))
    (example,) = read(tmp_path / "d.jsonl")
    texts, prompt, _ = learnt_text(codec(CHATML), example)
    assert texts == ["z<|im_end|>"] and "a<|im_end|>" in codec(CHATML).tokenizer.decode(prompt)


def test_an_earlier_answer_that_the_template_writes_otherwise_is_not_learnt(tmp_path):
    texts, prompt, _ = learnt_text(codec(LATER), talk(tmp_path, ASK, TELL, ASK, TELL))
    assert texts == ["a<|im_end|>"] and "(earlier) a" in codec(LATER).tokenizer.decode(prompt)


def test_the_objective_sees_the_learnt_tokens_alone(tmp_path):
    """Rows of the batch, their labels, the cached signal and the room of a sequence follow the mask."""
    speaker = codec(CHATML)
    prompt, response, learnt = speaker.example_ids(talk(tmp_path, ASK, TELL, ASK, {**TELL, "content": "bb"}))
    sequence = TrainingSequence(prompt, response, Source.DATA, 0, learnt=learnt)
    plain = TrainingSequence((1, 2), (3, 4), Source.DATA, 1)
    batch = collate([sequence, plain], 257, None, "cpu")
    end = speaker.end_id
    a, b = (speaker.encode(text)[0] for text in "ab")
    assert batch.labels.tolist() == [a, end, b, b, end, 3, 4]
    assert batch.position.tolist() == [0, 1, 2, 3, 4, 0, 1] and batch.length.tolist() == [5] * 5 + [2] * 2
    whole = (*prompt, *response)
    assert [whole[column + 1] for column in batch.column[:5].tolist()] == batch.labels[:5].tolist()
    ends = [False] * 300
    assert collate([sequence, plain], 257, torch.tensor(ends), "cpu").segment_list == [0, 0, 1, 1, 1, 2, 2]
    cache = SignalCache(tmp_path, {}, range(2), [sequence, plain].__getitem__)
    assert cache.lengths == [5, 2] and cache.read_tokens == len(whole) + 4


def test_a_cut_conversation_keeps_mask_and_tokens_together(tmp_path):
    example = talk(tmp_path, ASK, TELL, ASK, TELL)
    prompt, response, learnt = codec(CHATML).example_ids(example)
    for room in range(len(response)):
        cut = TrainingSequence(prompt, response[:room], Source.DATA, 0, learnt=learnt[:room])
        assert len(cut.places) == sum(learnt[:room])


def test_turns_in_words_for_a_model_without_a_template(tmp_path):
    example = talk(tmp_path, ASK, TELL, {"role": "user", "content": "more"}, TELL)
    assert example.prompt.plain == "User: q\n\nAssistant: a\n\nUser: more\n\nAssistant:"
    assert example.prompt.history == (Turn("user", "q"), Turn("assistant", "a"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "kd", "gkd"])
def test_a_run_on_conversations_says_what_it_trains_on(method, tmp_path, models, capsys):
    folders = []
    for folder in models:
        copy = tmp_path / folder.name
        copy.mkdir()
        for file in folder.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        speaker = codec(CHATML).tokenizer
        speaker.save_pretrained(copy)
        folders.append(copy)
    (tmp_path / "d.jsonl").write_bytes(lines(*[{"messages": [SYSTEM, ASK, TELL, ASK, TELL]}] * 4))
    words = ["run", "--method", method, "--recipe", "micro", "--student", str(folders[0]), "--teacher", str(folders[1])]
    settings = [f"data.prompts={tmp_path / 'd.jsonl'}", f"data.labelled={tmp_path / 'd.jsonl'}", "training.steps=2"]
    settings += ["training.batch=4", "evaluation.limit=1", "evaluation.max_new_tokens=2", "rollout.max_new_tokens=3"]
    words += [w for s in [*settings, "teacher_text.max_new_tokens=3"] for w in ("--set", s)]
    assert main([*words, "--task", "amc23@micro", "--results", str(tmp_path / "results"), "--json"]) == 0
    printed = capsys.readouterr()
    (record,) = json.loads(printed.out)["records"]
    assert "4 examples of d.jsonl, from messages; sha256 " in printed.err
    assert (
        "the first training example is '<|im_start|>system\\ns<|im_end|>\\n<|im_start|>user\\nq<|im_end|>"
        in printed.err
    )
    (facts,) = [read for name, read in record["data"].items() if name != "contamination"]
    assert facts["source"] == "d.jsonl" and facts["examples"] == 4 and facts["columns"] == "messages"


def test_the_room_of_a_prompt_is_counted_in_tokens_of_its_rendering(tmp_path):
    speaker, example = codec(CHATML), talk(tmp_path, ASK, TELL)
    size = len(speaker.encode(speaker.render(example.prompt)))
    assert Room(size, "").left_out([example], speaker) == [example]
    assert Room(size + 1, "").left_out([example], speaker) == []
