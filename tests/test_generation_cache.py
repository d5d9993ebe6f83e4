"""No text is made twice: not after a crash, not for another seed, not to be graded again."""

import json
import os
import signal

import pytest
from children import finished, forked
from openai_stub import serving

from harness.cli import main
from harness.durable import CacheFile
from harness.errors import BadInput, RunFailed
from harness.models.generate import Generator
from harness.models.generation_cache import CachedAnswer, CachedGenerator
from harness.models.openai_client import ClientOptions
from harness.models.server_generator import ServerGenerator
from harness.types import Decoding

GREEDY = Decoding(max_new_tokens=8)
SAMPLED = Decoding(temperature=1.0, max_new_tokens=8)


class Counting:
    """A generator that tells what it was asked, and stops like a killed process after ``room`` texts."""

    batch = 1

    def __init__(self, room=10**6):
        self.asked, self.room = [], room

    def generate(self, texts, decoding, seeds, watch):
        made = []
        for row, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
            if len(self.asked) == self.room:
                raise KeyboardInterrupt
            self.asked.append((text, seed))
            made.append(CachedAnswer(f"{text}/{seed}\ud800é", 1, "stop"))
            watch.finished(row, made[-1])
        return made


def asked(folder, texts, decoding, seeds, identity="model", **options):
    inner = Counting()
    answers = CachedGenerator(inner, folder, {"weights": identity}, **options).generate(texts, decoding, seeds)
    return answers, inner.asked


def test_a_text_is_named_by_all_that_decides_it(tmp_path):
    first, made = asked(tmp_path, ["a", "b", "a"], SAMPLED, [1, 2, 1])
    assert len(made) == 2 and first[0] == first[2] and first[0].text == "a/1\ud800é"
    assert asked(tmp_path, ["b", "a"], SAMPLED, [2, 1]) == ([first[1], first[0]], [])
    for changed in (
        dict(texts=["A"]),
        dict(seeds=[9]),
        dict(decoding=Decoding(temperature=0.9, max_new_tokens=8)),
        dict(decoding=Decoding(temperature=1.0, max_new_tokens=8, stop=("x",))),
        dict(identity="other weights"),
    ):
        _, made = asked(tmp_path, **(dict(texts=["a"], decoding=SAMPLED, seeds=[1]) | changed))
        assert len(made) == 1, changed
    more_samples = Decoding(temperature=1.0, max_new_tokens=8, samples=4)
    assert asked(tmp_path, ["a"], more_samples, [1])[1] == []


def test_greedy_text_has_no_seed_except_from_a_server(tmp_path):
    asked(tmp_path, ["a"], GREEDY, [1])
    assert asked(tmp_path, ["a"], GREEDY, [2])[1] == []
    assert asked(tmp_path, ["a"], GREEDY, [2], seeded=True)[1] == [("a", 2)]
    assert asked(tmp_path, ["a"], GREEDY, [1], fresh=True)[1] == [("a", 1)]


def test_a_killed_process_loses_at_most_what_was_under_way(tmp_path):
    texts, seeds = [f"{i:02}" for i in range(20)], list(range(20))
    with pytest.raises(KeyboardInterrupt):
        CachedGenerator(Counting(room=10), tmp_path, {}).generate(texts, SAMPLED, seeds)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])  # and the last line is torn
    inner = Counting()
    answers = CachedGenerator(inner, tmp_path, {}).generate(texts, SAMPLED, seeds)
    assert [answer.text[:2] for answer in answers] == texts and len(inner.asked) == 11
    with path.open("ab") as file:
        file.write(b'{"key": "d", "text": 7, "tokens": 1, "finish": "stop"}\n[]\n\xff\n' + b"[" * 5000 + b"\n")
    assert CachedGenerator(Counting(room=0), tmp_path, {}).generate(texts, SAMPLED, seeds) == answers


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write the cache"):
        CachedGenerator(Counting(), tmp_path / "file", {})


def test_a_dying_server_costs_only_what_it_did_not_answer(tmp_path):
    texts, quick = [f"text:{i}" for i in range(9)], ClientOptions(retries=1, backoff_s=0.01, timeout_s=5.0)
    with serving(*["ok"] * 4, then="die") as stub:
        dying = CachedGenerator(ServerGenerator("stub", stub.url, batch=1, options=quick), tmp_path, {})
        with pytest.raises(RunFailed, match="run again, its completions are kept"):
            dying.generate(texts, GREEDY, range(9))
    with serving() as other:
        resumed = CachedGenerator(ServerGenerator("stub", other.url, batch=4, options=quick), tmp_path, {})
        assert len(resumed.generate(texts, GREEDY, range(9))) == 9
        assert len(other.requests()) == 5 and resumed.reused == 4


@pytest.mark.slow
def test_a_killed_run_resumes_and_again_generates_nothing(tmp_path, models, capsys, monkeypatch):
    words = ["run", "--method", "untouched", "--task", "gsm8k", "--student", str(models[0]), "--json"]
    words += ["--set", "evaluation.limit=6", "--set", "evaluation.max_new_tokens=4", "--set", "evaluation.batch=1"]
    words += ["--results", str(tmp_path / "results")]
    plain, calls = Generator.generate, []

    def killed(self, *asked):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *asked)

    def run_and_die():
        Generator.generate = killed
        main(words)

    assert finished(forked(run_and_die, tmp_path / "said")) == -signal.SIGKILL

    rows = []

    def counted(self, texts, *rest):
        rows.extend(texts)
        return plain(self, texts, *rest)

    monkeypatch.setattr(Generator, "generate", counted)
    scores = []
    for more in ([], ["--again"], ["--seed", "1"]):
        assert main([*words, *more]) == 0
        scores.append(json.loads(capsys.readouterr().out)["records"][0]["counts"])
        assert len(rows) == 2  # of six, four were kept; and none is made again
    assert scores[0] == scores[1] == scores[2]


def run_and_die_with(room: int, words: list[str]) -> None:
    """Runs a command and kills its process once ``room`` texts are in its cache files."""
    plain, left = CacheFile.add, [room]

    def add(self, facts, **how):
        plain(self, facts, **how)
        left[0] -= len(facts)
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    CacheFile.add = add
    main(words)


@pytest.mark.slow
@pytest.mark.parametrize("problems", [12, 164])
@pytest.mark.parametrize("stage", ["evaluation", "teacher texts"])
def test_every_finished_text_survives_a_killed_process(stage, problems, tiny_world, tmp_path, monkeypatch, capsys):
    """Was all or nothing below 256 completions and below 128 teacher texts, which were one piece."""
    numbers = "".join(json.dumps({"number": i}) + "\n" for i in range(problems))
    (tmp_path / "data/parity/test.jsonl").write_text(numbers)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"{i} and"}) + "\n" for i in range(problems)))
    recipe = tiny_world(
        f"[training]\nsteps = 1\nbatch = {problems}\nmax_tokens = 64\nthreads = 1\n"
        "[teacher_text]\nmax_new_tokens = 6\ntemperature = 1.0\n[evaluation]\nbatch = 64\ntemperature = 1.0\n",
        prompts=prompts,
    )
    method = {"evaluation": "untouched", "teacher texts": "seqkd"}[stage]
    words = ["run", "--method", method, "--recipe", str(recipe), "--task", "tests/plugin/parity_plugin.py", "--json"]
    words += ["--results", str(tmp_path / "results")]
    kept = problems // 2 + 1
    killed = forked(lambda: run_and_die_with(kept, words), tmp_path / "said")
    assert finished(killed) == -signal.SIGKILL, (tmp_path / "said.err").read_text()
    folder = {"evaluation": "generations", "teacher texts": "teacher_texts"}[stage]
    (file,) = (tmp_path / "results/work" / folder).glob("*.jsonl")
    before = file.read_bytes()
    assert before.count(b"\n") == kept
    # The same command writes the others, and none of the kept ones again.
    assert main(words) == 0
    after = (tmp_path / "results/work" / folder / file.name).read_bytes()
    assert after.startswith(before) and after.count(b"\n") == problems
