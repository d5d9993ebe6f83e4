"""Every registered objective against an independent float64 formula: value, gradient, and the loss of whole steps."""

import numpy as np
import pytest
import torch
from loss_formulas import softmax
from objective_formulas import DECLARED, VALUES, Text, step_loss, weight
from tiny_runs import BATCH, LABELS, distinct, make, method, pair, quiet

from harness.method import Pairs, Sequences, Step, Tokens
from harness.models.files import load_model
from harness.testing import step_features
from harness.training.loop import train
from harness.training.rollouts import Rollouts
from harness.types import Source

torch.set_num_threads(1)
VOCAB, STEP = 9, Step(index=1, total=10, draw=0.25, epoch=1.3, epochs=3.5)
SPECIAL = (0, 4)
STATES = {"distillm2": {"first_gaps": [0.09, -0.2]}, "taid": {"ratio": 0.7}}
# Settings at which no branch of a formula is idle on these tokens.
HARD = {"opd": {"discount": 0.6, "coefficient": 1.7}, "eopd": {"tau": 1.6}, "pw_opd": {"cap": 0.9}}
for name, k in (("eopd", "top_k"), ("topk_opd", "k"), ("selectkd", "k")):
    HARD[name] = HARD.get(name, {}) | {k: 3}
HARD["eopd@full"] = {"tau": 1.6}
HARD["amid"] = {"share": 0.3, "alpha": -0.6}
HARD["todi"] = {"beta": 1.4}
HARD["fdistill"] = {"share": 0.4}
HARD["reopold"] = {"mixture": 0.4}
HARD["sdft"] = {"k": 4, "alpha": 0.3}
HARD["opsd"] = {"beta": 0.7, "temperature": 0.8}
HARD["gopd"] = {"scale": 1.7}
HARD["grpo"] = HARD["grpo@dapo"] = {"clip": 0.1, "clip_high": 0.15}
HARD["kdrl"] = {"beta": 0.7, "clip": 0.1}
HARD["luffy"] = {"clip": 0.1, "entropy": 0.3}
HARD["luffy@release"] = {"entropy": 0.3}
HARD["sdpo"] = {"k": 4, "alpha": 0.3, "ratio": 1.15}
HARD["sdpo@trl"] = {"ratio": 1.15}


def sources(method) -> tuple[Source, ...]:
    """Of the two sequences: the sides that a method tells apart."""
    if method.name == "minillm":
        return (Source.MIXED, Source.DATA) if method.config.lm else (Source.STUDENT, Source.STUDENT)
    return (Source.STUDENT, Source.DATA if method.name == "sft" else Source.TEACHER)


class Case:
    """Two sequences of 6 and 4 tokens over 9 words in float64, as the loop would hand them out and as texts."""

    def __init__(self, label, hard=True):
        self.label, self.name = label, label.partition("@")[0]
        self.method = method(label, HARD.get(label, HARD.get(self.name)) if hard else None, plain=True)
        self.method.state = dict(STATES.get(self.name, {}))
        generator = torch.Generator().manual_seed(3)
        self.student, self.teacher = 1.3 * torch.randn(2, 10, VOCAB, generator=generator, dtype=torch.float64)
        self.labels = torch.randint(0, VOCAB, (10,), generator=generator)
        own = self.student.log_softmax(-1).gather(-1, self.labels[:, None])[:, 0]
        self.source = sources(self.method)
        fixed = torch.arange(10) >= 6
        old = own - 0.3 * torch.rand(10, generator=generator, dtype=torch.float64)
        self.old = old.where(~fixed, torch.nan)
        self.reference = own - 0.5 * torch.rand(10, generator=generator, dtype=torch.float64)
        self.sequence = fixed.long()
        self.position = torch.cat([torch.arange(6), torch.arange(4)])
        self.length = torch.tensor([6] * 6 + [4] * 4)
        self.segment_id = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 4, 4])

    def tokens(self, student=None, order=None) -> Tokens:
        """``order`` renames the words: the same tokens in another vocabulary."""
        student, teacher, labels = self.student if student is None else student, self.teacher, self.labels
        if order is not None:
            special = torch.isin(labels, torch.tensor(SPECIAL))
            student, teacher, labels = student[:, order], teacher[:, order], order.argsort()[labels]
        features = None
        if self.method.needs.sequence_features:
            log_q, log_p = (z.detach().log_softmax(-1).gather(-1, labels[:, None])[:, 0] for z in (student, teacher))
            features = self.method.sequence_features(
                Sequences(log_p, log_q, self.old, self.sequence, self.position, self.length, self.source, STEP)
            )
        tokens = Tokens(
            logits=student,
            labels=labels,
            student=student,
            teacher=teacher,
            sequence=self.sequence,
            position=self.position,
            length=self.length,
            segment_id=self.segment_id,
            source=self.source,
            sampler_log_prob=self.old,
            validity=None,
            step=STEP,
            sequence_features=features,
            special=torch.isin(self.labels, torch.tensor(SPECIAL)) if order is None else special,
            reference_log_prob=self.reference,
            informed=self.sequence == 0,
        )
        if self.method.needs.step_features:
            tokens.step_features = step_features(self.method, tokens)
        if self.method.needs.gate:
            tokens.gate = self.method.weight(tokens)
        if self.method.needs.pairing is not None:  # of one tokenizer: every token is a pair
            alone, each = torch.empty(0, dtype=torch.long), torch.arange(10)
            same = torch.arange(VOCAB)[:, None].expand(-1, 2)
            tokens.pairs = Pairs(
                each, each, labels, self.sequence, self.position, self.length, same, (alone, alone), 1.0
            )
        return tokens

    def texts(self) -> list[Text]:
        p, q, y = softmax(self.teacher.numpy()), softmax(self.student.numpy()), self.labels.numpy()
        parts = []
        for i, here in enumerate((slice(0, 6), slice(6, 10))):
            old = None if i else self.old.numpy()[here]
            parts.append(
                Text(
                    p[here],
                    q[here],
                    y[here],
                    old,
                    str(self.source[i]),
                    self.segment_id.numpy()[here],
                    (STEP.index, STEP.total),
                    self.method.state,
                    (STEP.epoch, STEP.epochs),
                    special=SPECIAL,
                    reference=self.reference.numpy()[here],
                    reward=1.0 - i,
                    longest=12,  # twice the longer text, as harness.testing has it
                    informed=i == 0,
                )
            )
        for text in parts:
            text.whole = parts
        return parts

    def formula(self, z) -> np.ndarray:
        """[10] value of every token for the student's logits ``z``; the loop adds up means, see factor."""
        texts = self.texts()
        moved = softmax(z)
        values = [
            VALUES[self.name](self.method.config, t, moved[a:b]) for t, a, b in zip(texts, (0, 6), (6, 10), strict=True)
        ]
        return self.factor * np.concatenate(values)

    @property
    def factor(self) -> int:
        """How often a method multiplies its objective because the loop takes the mean over the sources of a step."""
        return len(self.method.sources(STEP)) if self.method.reduction == "source" or self.twice else 1

    @property
    def twice(self) -> bool:
        return self.name == "distillm2" or self.label == "gkd@distillm2"


@pytest.mark.parametrize("label", LABELS)
def test_the_objective_of_every_token_is_the_published_formula(label):
    case = Case(label)
    np.testing.assert_allclose(
        case.method.objective(case.tokens()).detach(), case.formula(case.student.numpy()), rtol=1e-8, atol=1e-9
    )
    given = case.method.weight(case.tokens())
    if given is not None and not case.method.needs.gate:
        expected = np.concatenate([weight(case.name, case.method.config, t) for t in case.texts()])
        np.testing.assert_allclose(given, expected, rtol=1e-6)


def derivative(value, z, step=1e-6) -> np.ndarray:
    """[N, V] central differences of a function [N, V] -> [N] whose rows do not touch."""
    found = np.zeros_like(z)
    for column in range(z.shape[1]):
        moved = np.zeros_like(z)
        moved[:, column] = step
        found[:, column] = (value(z + moved) - value(z - moved)) / (2 * step)
    return found


@pytest.mark.parametrize("label", LABELS)
def test_the_gradient_is_that_of_the_formula_with_its_declared_parts_frozen(label):
    """A detach that nobody declared, as in the released SRKL, fails here; so would a missing one."""
    if method(label).needs.pairing is not None and method(label).needs.whole:
        pytest.skip("its value looks across a text: tests/test_cross_tokenizers.py")
    case = Case(label)
    z = case.student.clone().requires_grad_()
    with torch.no_grad():
        given = case.method.weight(case.tokens())
    weights = torch.ones(10) if given is None or case.method.needs.gate else given
    tokens = case.tokens(z)
    teacher = tokens.teacher
    assert not teacher.requires_grad
    (grad,) = torch.autograd.grad((weights * case.method.objective(tokens)).sum(), z)
    expected = derivative(lambda x: weights.numpy() * case.formula(x), case.student.numpy())
    np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("label", sorted(DECLARED))
def test_what_is_declared_frozen_matters(label):
    """The gradient differs from the one with nothing frozen, so the test above can tell them apart."""
    case = Case(label)

    def thawed(x):
        case.student = torch.as_tensor(x)
        return case.formula(x)

    z = case.student.clone().requires_grad_()
    (grad,) = torch.autograd.grad(case.method.objective(case.tokens(z)).sum(), z)
    assert np.abs(grad.numpy() - derivative(thawed, case.student.numpy())).max() > 1e-3


@pytest.mark.parametrize("label", distinct())
def test_the_names_of_the_words_do_not_matter(label):
    case, order = Case(label), torch.randperm(VOCAB, generator=torch.Generator().manual_seed(1))
    there, here = case.tokens(order=order), case.tokens()
    torch.testing.assert_close(case.method.objective(there), case.method.objective(here), rtol=1e-9, atol=1e-10)
    for_there, for_here = case.method.weight(there), case.method.weight(here)
    assert for_here is None or torch.allclose(for_there, for_here)


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair")), prompts_file, tmp_path_factory.mktemp("runs")


@pytest.mark.slow
@pytest.mark.parametrize("label", distinct())
def test_the_loss_of_every_step_is_the_formula_over_its_whole_texts(place, label, monkeypatch):
    """From the texts that the loop collected, through transformers' own full logits, to the number in the curve."""
    if label.endswith("shuffled"):
        pytest.skip("a control has no formula: its weights are dealt out at random")
    models, prompts, folder = place
    collected, states, students = [], [], []
    collect = Rollouts.collect

    def record(self, step, wanted, cost):
        found = collect(self, step, wanted, cost)
        collected.append((step, found))
        states.append(dict(job.method.state))
        students.append({k: v.clone() for k, v in self.student.model.state_dict().items()})
        return found

    monkeypatch.setattr(Rollouts, "collect", record)
    job = make(label, models, prompts, folder)
    outcome = train(job, quiet)
    student, teacher, first = (load_model(m).double() for m in (job.student, job.teacher, job.student))
    asking = job.method.needs.asking
    newline = outcome.tokenizer("\n")["input_ids"][0]
    assert len(collected) == 3 and all(len(found) >= BATCH for _, found in collected)
    for (step, found), state, weights, row in zip(collected, states, students, outcome.curve, strict=True):
        student.load_state_dict(weights)
        if asking is not None and asking.model != "teacher":
            teacher = load_model(job.student).double()
            _teach(teacher, asking, students, step)
        special = tuple(outcome.tokenizer.all_special_ids)
        pairing = job.method.needs.pairing
        after = 1 if pairing is not None and pairing.after else 0  # rows behind the tokens: all but the first
        texts = texts_of(found, student, teacher, first, newline, step, state, special, after)
        expected = step_loss(label, job.method.config, texts)
        assert row["loss"] == pytest.approx(expected, rel=2e-4, abs=1e-6), f"step {step.index}"


def _teach(teacher, asking, students, step):
    """Gives the student's weights to the teacher: of before training, of now, or averaged over the steps until now."""
    mean = students[step.index if asking.model == "live" else 0]
    for weights in students[1 : step.index + 1] if asking.model == "ema" else ():
        mean = {k: asking.decay * v + (1 - asking.decay) * weights[k] for k, v in mean.items()}
    teacher.load_state_dict(mean)


def texts_of(found, student, teacher, first, newline, step, state, special=(), behind=None) -> list[Text]:
    """What the formulas read of the sequences of a step, through the models' whole logits."""
    q, at_first = (_chances(model, [(s.prompt, s.response) for s in found]) for model in (student, first))
    p = _chances(teacher, [(s.prompt if s.teacher_prompt is None else s.teacher_prompt, s.response) for s in found])
    rest = newline, step, state, special, behind
    return [_text(*each, *rest) for each in zip(found, p, q, at_first, strict=True)]


@torch.no_grad()
def _chances(model, texts) -> list[np.ndarray]:
    """Of (prompt, response): the model's probabilities [response, V]. It does not see the padding behind it."""
    whole = [torch.tensor(prompt + response) for prompt, response in texts]
    logits = model(torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)).logits[..., :258].double().numpy()
    spans = [slice(len(prompt) - 1, len(prompt) + len(response) - 1) for prompt, response in texts]
    return [softmax(rows[span]) for rows, span in zip(logits, spans, strict=True)]


def _text(sequence, p, q, first, newline, step, state, special, behind) -> Text:
    y = np.array(sequence.response)
    lines = np.concatenate([[0], np.cumsum(y[:-1] == newline)])
    old = None if sequence.log_probs is None else np.array(sequence.log_probs)
    return Text(
        p,
        q,
        y,
        old,
        str(sequence.source),
        lines,
        (step.index, step.total),
        state,
        (step.epoch, step.epochs),
        sequence.place % BATCH,
        special,
        np.log(first[np.arange(len(y)), y]),
        rows=behind,
        reward=sequence.reward,
        longest=8,  # rollout.max_new_tokens of these runs
        informed=sequence.teacher_prompt is not None,
    )


def test_taid_at_its_end_is_the_forward_kl_bit_for_bit():
    case = Case("taid")
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        case.method.state = {"ratio": 1.0}
        case.student, case.teacher = case.student.to(dtype), case.teacher.to(dtype)
        z = case.student.clone().requires_grad_()
        ours = case.method.objective(case.tokens(z))
        theirs = method("kd").objective(case.tokens(z))
        assert torch.equal(ours, theirs)
        assert torch.equal(*(torch.autograd.grad(v.sum(), z)[0] for v in (ours, theirs)))


IDENTITIES = [
    ("gkd", {"beta": 0.3, "on_policy": 0.0}, "jsd", {"beta": 0.3}),  # lambda = 0: off-policy JSD
    ("vcrd", {"gate": "one", "beta": 0.3, "on_policy": 0.0}, "jsd", {"beta": 0.3}),  # w = 1: the base
    ("vcrd", {"kappa": 0.0, "on_policy": 0.0}, "jsd", {}),  # a gate without slope
    ("jsd", {"beta": 1.0}, "rkl", {}),
    ("jsd", {"beta": 0.0}, "kd", {}),
    ("skl", {"alpha": 0.0}, "kd", {}),
    ("srkl", {"alpha": 0.0}, "rkl", {}),
    ("distillm", {"threshold": 0.0, "epsilon": 100.0}, "skl", {"text": "data"}),
    ("distillm@srkl", {"threshold": 0.0, "epsilon": 100.0}, "srkl", {"text": "data"}),
    ("taid", {"start": 1.0}, "kd", {}),
    ("iw_opd", {"gamma": 0.0}, "opd", {}),
    ("pw_opd@linear", {"rise": 0.0, "cap": 1e6}, "gkd", {"beta": 0.0, "on_policy": 1.0}),
    ("eopd@full", {"forward": 0.0}, "gkd", {"beta": 1.0, "on_policy": 1.0}),
    ("eopd", {"forward": 0.0}, "opd", {}),  # whose ratio stays within the clip
    ("topk_opd@unmasked", {"k": 258}, "gkd", {"beta": 1.0, "on_policy": 1.0}),  # k = V: the full reverse KL
    ("topk_opd@unmasked", {"k": 258, "rest": "bucket"}, "gkd", {"beta": 1.0, "on_policy": 1.0}),
    ("topk_opd@student", {"k": 258, "special": "trained"}, "gkd", {"beta": 1.0, "on_policy": 1.0}),
    ("selectkd", {"rejected": 1.0}, "kd", {}),  # weight 1: the base
    ("selectkd@weights", {"rejected": 1.0, "divergence": "reverse_kl"}, "rkl", {}),
    ("selectkd", {"k": 258}, "kd", {}),  # everything is accepted
    ("tip", {"share": 1.0}, "gkd", {"beta": 1.0, "on_policy": 1.0}),
    ("amid", {"share": 0.0, "divergence": "forward_kl"}, "kd", {}),  # r = q
    ("amid", {"share": 0.0}, "abkd", {}),
    ("amid@release", {"share": 0.1, "alpha": -1.0}, "skl", {"alpha": 0.1}),  # the arithmetic mixture
    ("fdistill@kl", {}, "kd", {}),
    ("fdistill@rkl", {}, "gkd", {"beta": 1.0, "on_policy": 1.0}),
    ("imitkd", {"base": 1.0, "target": "likeliest"}, "sft", {}),  # data alone
    ("kdrl", {"beta": 0.0, "beta_end": 0.0}, "grpo@dapo", {"clip_high": 0.2, "redraw": "step"}),
    ("luffy", {"own": 3, "traces": 0, "entropy": 0.0}, "grpo@dr_grpo", {"redraw": "step"}),
    ("opd", {"discount": 1e-9}, "opd", {}),  # the way through sequence features to the same advantage
]


@pytest.mark.slow
@pytest.mark.parametrize(("one", "settings", "other", "others"), IDENTITIES)
def test_methods_meet_where_their_formulas_do(place, one, settings, other, others):
    """Whole runs: the same losses and the same weights."""
    models, prompts, folder = place
    runs = [train(make(m, models, prompts, folder, settings=s), quiet) for m, s in ((one, settings), (other, others))]
    losses = [[row["loss"] for row in run.curve] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for a, b in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_minillm_trl_is_k1_advantage_plus_the_reverse_kl(place):
    """discount 0: every token has its own reward alone, and no length divides it."""
    case = Case("minillm@trl")
    case.old = torch.full((10,), torch.nan, dtype=torch.float64)
    z = case.student.clone().requires_grad_()
    log_q, log_p = (t.log_softmax(-1) for t in (z, case.teacher))
    taken = log_q.gather(-1, case.labels[:, None])[:, 0]
    advantage = (log_p.gather(-1, case.labels[:, None])[:, 0] - taken).detach()
    reverse = (log_q.exp() * (log_q - log_p)).sum(-1)
    (expected,) = torch.autograd.grad((reverse - (taken - taken.detach()).exp() * advantage).sum(), z)
    (ours,) = torch.autograd.grad(case.method.objective(case.tokens(z)).sum(), z)
    torch.testing.assert_close(ours, expected)


def test_sdpo_on_fresh_text_is_sdft_with_another_teacher():
    """The importance weight is 1 there; what the teacher reads is not the objective's affair."""
    case = Case("sdpo")
    case.old = torch.full((10,), torch.nan, dtype=torch.float64)
    other = method("sdft", {"k": 4, "alpha": 0.3, "rest": "bucket"})
    torch.testing.assert_close(case.method.objective(case.tokens()), other.objective(case.tokens()))
