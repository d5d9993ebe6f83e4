"""Methods for a teacher of another tokenizer: formulas, TRL's own loss, whole steps, and what must change nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from loss_formulas import softmax
from objective_formulas import transport
from tiny_runs import close, method, quiet, result
from tiny_runs import make as of_one_tokenizer
from tokenizers_made import byte_level, sentencepiece
from transformers import LlamaConfig, LlamaForCausalLM

from harness.cli import main
from harness.method import Pairing, Pairs
from harness.method_probe import MIDWAY, SHARED, STUDENT_PAIRS, TEACHER_PAIRS, random_tokens
from harness.models.alignment import pair
from harness.models.files import load_model
from harness.training.loop import train
from harness.training.rollouts import Rollouts
from harness.training.teacher_reading import chosen

torch.set_num_threads(1)
CHAT = (
    "{%- for m in messages %}{{ '[' + m.role + '] ' + m.content + eos_token }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '[assistant] ' }}{%- endif %}"
)
METHODS = ("uld", "uld@spans", "gold", "gold@trl", "gold@nemo", "multilevel_ot")


def make(*args, **settings):
    """A job whose models share no ids, whatever their tokenizers are."""
    job = of_one_tokenizer(*args, **settings)
    job.words = None
    return job


# -- formulas, written apart in float64 ------------------------------------------------------------------------------


def piece(merge, probs, labels, rows):
    """The distribution of one pair over a vocabulary, from the probabilities [n, V] of its rows."""
    if merge == "mean":
        return np.exp(np.log(probs[rows]).mean(0))
    if merge == "chain":
        return probs[rows[-1]] * np.prod([probs[r, labels[r]] for r in rows[:-1]])
    return probs[rows[0]] * np.prod([probs[r, labels[r - 1]] for r in rows[1:]])


def gap(q, p, most=0):
    a, b = (np.sort(side)[::-1] for side in (q, p))
    if most:
        width = min(most, len(a), len(b))
        return np.abs(a[:width] - b[:width]).sum()
    width = max(len(a), len(b))
    return np.abs(np.pad(a, (0, width - len(a))) - np.pad(b, (0, width - len(b)))).sum()


def jsd(q, p, beta):
    if beta == 0:
        return (p * np.log(p / q)).sum()
    if beta == 1:
        return (q * np.log(q / p)).sum()
    m = beta * p + (1 - beta) * q
    return beta * (p * np.log(p / m)).sum() + (1 - beta) * (q * np.log(q / m)).sum()


def compared(label, c, q, p, shared):
    """The distance of a pair's two distributions."""
    if label.startswith("uld"):
        return c.weight * gap(q, p)
    ours, theirs = ([one[side] for one in shared] for side in (0, 1))
    rest = [np.delete(side, ids) for side, ids in ((q, ours), (p, theirs))]
    w = len(shared) / len(p)
    weights = (w, 1 - w) if c.balance == "overlap" else (c.shared, c.others)
    others = gap(*rest, c.most) if len(rest[0]) and len(rest[1]) else 0.0
    return weights[0] * jsd(q[ours], p[theirs], c.beta) + weights[1] * others


def text_value(label, c, z, labels, y, others, pairs, shared):
    """(sum of cross-entropies, sum over pairs, pairs) of one text: logits [n, V] and [m, W], pairs as lists of rows."""
    q, p = softmax(z), softmax(y)
    cross = -np.log(q[np.arange(len(q)), labels]).sum()
    if label == "multilevel_ot":
        return cross, c.weight * transport(c, z, y), 1
    merge = getattr(c, "merge", "chain")
    found = [compared(label, c, piece(merge, q, labels, a), piece(merge, p, others, b), shared) for a, b in pairs]
    return cross, sum(found), len(found)


def step_value(label, c, texts):
    """The loss of a step over ``texts``: what :func:`text_value` takes behind label and c, and the text's tokens."""
    parts = [(*text_value(label, c, *text), len(text[0])) for text in texts]
    if label == "gold@nemo":
        cross, values, pairs, tokens = (sum(column) for column in zip(*parts, strict=True))
        return c.hard * cross / tokens + values / max(pairs, 1)
    return np.mean([c.hard * cross / n + values / max(pairs, 1) for cross, values, pairs, n in parts])


@pytest.mark.parametrize("label", METHODS)
def test_value_and_gradient_are_those_of_the_formula(label):
    """Two texts whose readings are cut otherwise, in float64; the gradient by finite differences of the formula."""
    m = method(label, plain=True)
    if label == "gold@nemo":
        m = method(label, {"most": 3, "hard": 0.7}, plain=True)
    elif label == "multilevel_ot":
        m = method(label, {"k": 6, "sinkhorn": 0.3, "rounds": 3}, plain=True)
    tokens = random_tokens(4, dtype=torch.float64, method=m, step=MIDWAY)
    counts = [8, 5]
    if label == "gold@nemo":
        tokens.pairs = dataclasses.replace(tokens.pairs, tokens_per_pair=13 / 10)

    def formula(z):
        y, labels, others = tokens.teacher.numpy(), tokens.labels.numpy(), tokens.pairs.labels.numpy()
        texts = []
        for i, (a, b) in enumerate(((0, 8), (8, 13))):
            rows = slice(*((0, 8), (8, 14))[i])
            own, theirs = np.array(STUDENT_PAIRS)[a:b], np.array(TEACHER_PAIRS)[rows]
            pairs = [(np.flatnonzero(own == g), np.flatnonzero(theirs == g)) for g in sorted(set(own.tolist()) - {-1})]
            texts.append((z[a:b], labels[a:b], y[rows], others[rows], pairs, SHARED))
        return step_value(label, m.config, texts)

    values = m.objective(tokens)
    scale = (
        torch.tensor([1 / n for n in counts for _ in range(n)], dtype=torch.float64) / 2
        if m.reduction == "sequence"
        else 1 / 13
    )
    loss = (values * scale).sum()
    z = tokens.student.detach().numpy()
    assert loss.item() == pytest.approx(formula(z), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, tokens.student)
    for place in [(0, 2), (1, 7), (3, 0), (7, 5), (8, 1), (11, 10)]:
        moved = [z.copy(), z.copy()]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        assert gradient[place].item() == pytest.approx(
            (formula(moved[0]) - formula(moved[1])) / 2e-6, rel=2e-4, abs=1e-8
        )


def test_trls_own_loss():
    """Both merges of TRL's GOLDTrainer, with shared words and without, with the ends and without, on padded texts."""
    found = json.loads((Path(__file__).parent / "golden/trl_gold.json").read_text("utf-8"))
    given = {name: torch.tensor(values) for name, values in found["inputs"].items()}
    sizes, sides = given["tokens"].tolist(), ("student", "teacher")
    words = [given[side].shape[-1] for side in sides]
    shared = given["shared"]
    alone = [torch.tensor([i for i in range(words[k]) if i not in shared[:, k]]) for k in (0, 1)]
    for case in found["cases"]:
        z = given["student"].clone().requires_grad_()
        logits, values = (z, given["teacher"]), []
        name = "gold" if case["hybrid"] else "uld@spans"
        kind = {"beta": case["beta"]} if case["hybrid"] else {"hard": 0.0, "weight": 1.0}
        merge = {"bayesian": "chain", "observed": "first"}[case["merge"]]
        m = method(name, kind | ({"merge": merge} if case["hybrid"] else {}), plain=True)
        if not case["hybrid"] and merge == "first":
            continue  # uld knows the chain rule alone
        for i in range(2):
            n, k = sizes[0][i], sizes[1][i]
            ends = [given[f"{side}_ends"][i][: size - 1].tolist() for side, size in zip(sides, (n, k), strict=True)]
            places = chosen(Pairing(ends=not case["skip"], after=merge == "first"), pair(*ends), n, k, closed=True)
            numbers = [torch.full((size,), -1) for size in (n, k)]
            for g, runs in enumerate(places):
                for side, run in enumerate(runs):
                    numbers[side][run.start : run.stop] = g
            said = [given[f"{side}_ids"][i][2 : 2 + size] for side, size in zip(sides, (n, k), strict=True)]
            rows = [part[i, 1 : 1 + size] for part, size in zip(logits, (n, k), strict=True)]
            nothing = torch.zeros(k, dtype=torch.long)
            pairs = Pairs(
                numbers[0], numbers[1], said[1], nothing, nothing, torch.full((n,), len(places)), shared,
                (alone[0], alone[1]), 1.0,
            )  # fmt: skip
            tokens = random_tokens(0, slice(0, n))
            tokens.logits = tokens.student = rows[0]
            tokens.teacher, tokens.labels, tokens.pairs = rows[1], said[0], pairs
            tokens.length = torch.full((n,), n)
            values.append(m.objective(tokens).mean())
        loss = torch.stack(values).mean()
        assert loss.item() == pytest.approx(case["value"], rel=found["tolerance"])
        (gradient,) = torch.autograd.grad(loss, z)
        torch.testing.assert_close(gradient, torch.tensor(case["gradient"]), rtol=1e-4, atol=found["tolerance"])


# -- whole runs of two tokenizers ------------------------------------------------------------------------------------


def save(folder, tokenizer, seed, hidden, template=None):
    torch.manual_seed(seed)
    tokenizer.chat_template = template
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 3, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, initializer_range=0.3, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    """A student of bytes and some words; a teacher in Llama's manner with a chat template and an end of its own."""
    root = tmp_path_factory.mktemp("two")
    student = save(root / "student", byte_level(("line ", "ne 1", "ab", "x.")), 0, 16)
    teacher = save(root / "teacher", sentencepiece(("li", "ne", " 1", "xx", "b a")), 1, 24, CHAT)
    return (student, teacher), prompts_file, tmp_path_factory.mktemp("runs")


def by_brute_force(ours, theirs, ids, others, how, ends):
    """Pairs of two readings of a text, from the bytes of single tokens: closed where both texts so far are equal."""

    def said(tokenizer, tokens):
        return [
            b"" if i in tokenizer.all_special_ids
            else tokenizer.decode([tokenizer.convert_tokens_to_ids("a"), i]).encode()[1:]
            for i in tokens
        ]  # fmt: skip

    left, right = said(ours, ids), said(theirs, others)
    if how.by == "place":
        return [([i], [i]) for i in range(min(len(ids), len(others)))]
    found, a, b = [], 0, 0
    for i in range(1, len(left) + 1):
        for k in range(b + 1, len(right) + 1):
            if left[i - 1] and right[k - 1] and b"".join(left[:i]) == b"".join(right[:k]):
                found.append((list(range(a, i)), list(range(b, k))))
                a, b = i, k
                break
    if how.ends and ids and ids[-1] in ends:
        found.append(([len(ids) - 1], [len(others) - 1]))
    if how.after:
        found = [([i + 1 for i in a], [i + 1 for i in b]) for a, b in found]
        found = [(a, b) for a, b in found if a[-1] < len(ids) and b[-1] < len(others)]
    return found


@pytest.mark.parametrize("label", METHODS)
def test_the_loss_of_every_step_is_the_formula_over_whole_texts(place, label, monkeypatch):
    """Fixed text: what the teacher is given is written down here, and its logits are transformers' own."""
    models, prompts, folder = place
    job = make(
        label, models, prompts, folder, settings={"text": "data"} | ({"on_policy": 0.0} if "gold" in label else {})
    )
    collected, students, collect = [], [], Rollouts.collect

    def record(self, step, wanted, cost):
        collected.append(collect(self, step, wanted, cost))
        students.append({k: v.clone() for k, v in self.student.model.state_dict().items()})
        return collected[-1]

    monkeypatch.setattr(Rollouts, "collect", record)
    outcome = train(job, quiet)
    student, teacher = load_model(job.student).double(), load_model(job.teacher).double()
    ours, theirs = byte_level(("line ", "ne 1", "ab", "x.")), sentencepiece(("li", "ne", " 1", "xx", "b a"))
    sizes = len(ours), len(theirs)
    names = {bytes(ours.decode([i]), "utf-8"): i for i in range(2, sizes[0])}
    alike = {}
    for i in range(2, sizes[1]):
        piece = theirs.decode([theirs.convert_tokens_to_ids("a"), i])[1:]
        if (
            "\ufffd" not in piece
            and piece.encode() in names
            and theirs("a" + piece, add_special_tokens=False)["input_ids"][-1] == i
        ):
            alike[names[piece.encode()]] = i
    assert len(alike) > 90
    for found, weights, row in zip(collected, students, outcome.curve, strict=True):
        student.load_state_dict(weights)
        texts = []
        for s in found:
            example = job.data.labelled[s.example]
            asked = theirs(f"[user] {example.prompt.user}</s>[assistant] ", add_special_tokens=False)["input_ids"]
            said = theirs("\n" + example.response, add_special_tokens=False)["input_ids"]
            said = [*said[said.index(theirs.convert_tokens_to_ids("\n")) + 1 :], theirs.eos_token_id]
            z, y = (
                m(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1, :size].double().detach().numpy()
                for m, prompt, response, size in zip(
                    (student, teacher), (s.prompt, asked), (s.response, said), sizes, strict=True
                )
            )
            pairs = by_brute_force(ours, theirs, s.response, said, job.method.needs.pairing, {ours.eos_token_id})
            shared = job_shared(job, alike)
            texts.append((z, np.array(s.response), y, np.array(said), pairs, shared))
        assert row["loss"] == pytest.approx(step_value(label, job.method.config, texts), rel=2e-4)
        assert row["paired"] > 0.5


def job_shared(job, alike):
    """The words of the test's own map, and what the harness adds: bytes that are no text, and the ends."""
    from harness.models.alignment import TextAligner
    from harness.models.files import text_codec

    aligner = TextAligner(text_codec(job.student), text_codec(job.teacher))
    found = aligner.shared((len(aligner.student.tokenizer), len(aligner.teacher.tokenizer)))
    assert alike.items() <= dict(found).items()
    assert all(i < 2 or aligner.bytes[0].of(i)[0] > 127 or i in alike for i, _ in found[:-1])
    return found


@pytest.mark.parametrize("label", ("gold", "gold@nemo", "uld@spans"))
def test_a_teacher_whose_ids_are_other_numbers_for_the_same_words_teaches_the_same(prompts_file, tmp_path, label):
    """One teacher with its vocabulary in two orders: another tokenizer, the same cuts, the same losses."""
    words = ("line ", "ne 1", "ab")
    student, teacher = byte_level(words), byte_level(words, order=-1)
    models = [save(tmp_path / "student", student, 0, 16), save(tmp_path / "teacher", student, 1, 24)]
    other = LlamaForCausalLM.from_pretrained(models[1])
    order = torch.tensor([student.convert_tokens_to_ids(t) for t in teacher.convert_ids_to_tokens(range(len(teacher)))])
    for rows in (other.get_input_embeddings().weight, other.get_output_embeddings().weight):
        rows.data[: len(order)] = rows.data[order].clone()
    other.config.eos_token_id = other.generation_config.eos_token_id = teacher.eos_token_id
    other.config.pad_token_id = other.generation_config.pad_token_id = teacher.pad_token_id
    other.save_pretrained(tmp_path / "other")
    teacher.save_pretrained(tmp_path / "other")
    settings = {"text": "data"} | ({"on_policy": 0.0} if label == "gold" else {})
    same = make(label, models, prompts_file, tmp_path, settings=settings, name="same")
    same.words = len(student)
    renamed = make(label, (models[0], tmp_path / "other"), prompts_file, tmp_path, settings=settings, name="other")
    one, another = train(same, quiet), train(renamed, quiet)
    assert [row["loss"] for row in one.curve] == pytest.approx([row["loss"] for row in another.curve], rel=1e-5)


@pytest.mark.parametrize("label", ("gold", "gold@nemo", "multilevel_ot"))
def test_nothing_depends_on_the_split_of_a_batch_or_on_the_chunks(place, label, monkeypatch):
    models, prompts, folder = place
    settings = {"on_policy": 1.0} if label == "gold" else {"text": "data"}
    whole = result(make(label, models, prompts, folder, settings=settings, signal="live"))
    cached = result(make(label, models, prompts, folder, settings=settings, signal="hidden", name="cached"))
    assert cached.losses == pytest.approx(whole.losses, rel=1e-5)
    monkeypatch.setattr("harness.training.objective.CHUNK_ELEMENTS", 2000)
    parts = result(make(label, models, prompts, folder, settings=settings, signal="live", micro_batch=1, name="parts"))
    close(whole, parts, weights=1e-3)


@pytest.mark.parametrize(
    ("label", "settings", "other"),
    [
        (
            "gold",
            {"beta": 0.3, "on_policy": 0.0, "text": "data"},
            ("gkd", {"beta": 0.3, "on_policy": 0.0, "text": "data"}),
        ),
        ("gold@nemo", {"hard": 0.0}, ("kd", {"text": "data"})),
        ("uld", {"weight": 0.0, "text": "data"}, ("sft", {})),
        ("multilevel_ot", {"weight": 0.0, "text": "data"}, ("sft", {})),
    ],
)
def test_with_one_tokenizer_they_are_what_they_generalise(models, prompts_file, tmp_path, label, settings, other):
    """JSD and forward KL token by token, and cross-entropy; where texts count alike, with one text a step."""
    alike = {"batch": 1, "steps": 2, "signal": "live"}
    one = make(label, models, prompts_file, tmp_path, settings=settings, name="one", **alike)
    one.words = 258
    two = make(other[0], models, prompts_file, tmp_path, settings=other[1], name="two", **alike)
    losses = [[row["loss"] for row in train(job, quiet).curve] for job in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_teacher_reads_the_students_own_text(place):
    outcome = train(make("gold", *place, settings={"on_policy": 1.0}, steps=2), quiet)
    assert all(row["on_policy"] == 1 and 0 < row["paired"] <= 1 and row["loss"] > 0 for row in outcome.curve)
    assert outcome.cost.teacher_forward_tokens > 0


# -- refusals --------------------------------------------------------------------------------------------------------


def refused(words, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said.replace("\nhint", ""), said
    return said


@pytest.fixture
def run(place, tiny_world, tmp_path, capsys):
    parity = str(Path(__file__).parent / "plugin/parity_plugin.py")

    def go(name, models=place[0], prompts=place[1], rest="[training]\nsteps = 1\nbatch = 2\nmax_tokens = 128\n"):
        recipe = tiny_world(rest, models=models, prompts=prompts)
        results = ["--results", str(tmp_path / "results")]
        return refused(["run", "--method", name, "--task", parity, "--recipe", str(recipe), *results], capsys)

    return go


def test_a_token_level_method_names_those_that_read_another_tokenizer(run):
    said = run("kd")
    named = said.rpartition("(")[2].rstrip(")").split(", ")
    assert "do not match" in said and {"gold", "multilevel_ot", "seqkd", "uld"} <= set(named) and "kd" not in named


def test_a_teacher_that_keeps_no_text_is_refused_before_any_work(run, place, tmp_path):
    from tokenizers_made import lower_case

    teacher = save(tmp_path / "lower", lower_case(), 1, 24)
    prompts = tmp_path / "upper.jsonl"
    prompts.write_text('{"prompt": "a", "response": "ABC"}\n' * 3)
    said = run("gold@trl", models=(place[0][0], teacher), prompts=prompts)
    assert "in none of 3 texts" in said and "does not keep the text" in said


def test_an_answer_of_several_turns_and_several_teachers_are_refused(run, place, tmp_path):
    turns = [{"role": role, "content": "ab"} for role in ("user", "assistant") * 2]
    talks = tmp_path / "talks.jsonl"
    talks.write_text(json.dumps({"messages": turns}) + "\n")
    assert "give rows with one answer each" in run("gold@trl", prompts=talks)
    rest = f"[training]\nsteps = 1\nbatch = 2\nmax_tokens = 128\n[teachers.other]\nmodel = '{place[0][1]}'\n"
    assert "supports only one teacher" in run("gold", rest=rest)
