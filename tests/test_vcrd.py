"""The reconstruction of VCRD: validities, gates and weights in closed form, and proposals judged by a checker."""

import dataclasses
import math

import pytest
import torch

from harness import registry
from harness.errors import BadInput
from harness.method import Proposing
from harness.models.generate import Generated, Scored
from harness.models.token_text import Segments
from harness.options import build
from harness.testing import random_tokens
from harness.training.batching import TrainingSequence
from harness.training.proposals import BOTH, Proposals
from harness.training.report import Cost
from harness.training.validity import CheckerValidity
from harness.types import Decoding, Example, Prompt, Source

VCRD = registry.find(registry.METHODS, "vcrd")


def method(**settings):
    return VCRD(build(VCRD.Config, settings, "vcrd"))


def tokens_of(student, teacher, segment_id):
    """Tokens whose distributions are given as rows of probabilities."""
    base = random_tokens(seed=0, keep=slice(0, len(student)))
    q, p = torch.tensor(student).log(), torch.tensor(teacher).log()
    return dataclasses.replace(base, logits=q, student=q, teacher=p, segment_id=torch.tensor(segment_id))


def test_the_weight_is_the_gate_of_the_validity_gap_of_the_step():
    teacher = [[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.34, 0.33, 0.33]]
    student = [[0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]
    gaps = [0.7 - 0.2, 0.0, 0.34 - 0.33]  # teacher's likeliest against student's likeliest, both under p
    weights = method(step="token", kappa=3.0).weight(tokens_of(student, teacher, [0, 1, 2]))
    assert weights.tolist() == pytest.approx([2 / (1 + math.exp(-3.0 * g)) for g in gaps], rel=1e-5)

    line = method(step="line", gate="clip", kappa=2.0).weight(tokens_of(student, teacher, [0, 0, 1]))
    mean = (gaps[0] + gaps[1]) / 2
    assert line.tolist() == pytest.approx([1 + 2 * mean, 1 + 2 * mean, 1 + 2 * gaps[2]], rel=1e-5)


def test_a_doubtful_teacher_is_not_taken_as_valid():
    """The same disagreement counts for less where the teacher spreads its mass."""
    student = [[0.05, 0.9, 0.05]] * 2
    sure, doubtful = [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]
    weights = method(step="token").weight(tokens_of(student, [sure, doubtful], [0, 1]))
    assert weights[0] > weights[1] > 1.0


@pytest.mark.parametrize("gate", ["sigmoid", "tanh", "clip", "one"])
def test_no_gap_weighs_one(gate):
    same = [[0.6, 0.3, 0.1]] * 2
    assert method(gate=gate).weight(tokens_of(same, same, [0, 1])).tolist() == [1.0, 1.0]


def test_the_verifier_can_find_the_teacher_wrong():
    tokens = tokens_of([[0.5, 0.5]] * 4, [[0.5, 0.5]] * 4, [0, 1, 2, 3])
    nan = float("nan")
    tokens.validity = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [nan, 1.0]])
    weights = method(validity="verifier", gate="tanh", kappa=1.0).weight(tokens)
    assert weights.tolist() == pytest.approx([1 + math.tanh(1), 1 - math.tanh(1), 1.0, 1.0])


def test_the_verifier_needs_whole_lines():
    with pytest.raises(BadInput, match=r"set method.step=line"):
        method(validity="verifier", step="token")


class Letters:
    """A tokenizer whose tokens are characters."""

    def __len__(self):
        return 128

    def decode(self, ids, **_):
        return "".join(map(chr, ids))


class Scripted:
    """Continues every prefix with the line that ``say`` makes of it; counts what it was asked."""

    tokenizer, end_ids = Letters(), frozenset()

    def __init__(self, say):
        self.say, self.asked = say, []

    def continue_ids(self, prefixes, decoding, seeds):
        assert decoding.stop == ("\n",)
        texts = [Letters().decode(p) for p in prefixes]
        self.asked += texts
        return [Generated(self.say(t), tuple(map(ord, self.say(t))), (0.0,), "stop", len(t)) for t in texts]

    def score(self, pairs):
        """It would have written nothing of these texts."""
        return [Scored((-1.0,) * len(ids), (False,) * len(ids)) for _, ids in pairs]


def test_both_models_propose_at_every_line_and_only_the_other_one_generates():
    student, teacher = Scripted(lambda _: "s"), Scripted(lambda _: "t")
    own = TrainingSequence(tuple(b"P:"), tuple(b"a\nbb\n"), Source.STUDENT, 0)
    reference = TrainingSequence(tuple(b"P:"), tuple(b"c"), Source.DATA, 0)
    examples = [Example("0", Prompt(user="P", plain="P:"), None, {"right": {"a", "t"}})]
    seen = []

    def check(meta, prefix, line):
        seen.append((prefix, line))
        return None if prefix and line == "t" else float(line in meta["right"])

    cost = Cost()
    made = Proposals(student, teacher, CheckerValidity(check), Proposing(), Segments(Letters(), "line"), check)
    first, second = made.judge([own, reference], examples, examples, 0, cost)
    assert teacher.asked == ["P:", "P:a\n", "P:"] and student.asked == ["P:"]
    # line "a": teacher's "t" right, student's own "a" right; line "bb": teacher unknown, student wrong
    assert first.validity[:2] == ((1.0, 1.0),) * 2
    assert all(math.isnan(t) and s == 0.0 for t, s in first.validity[2:]) and len(first.validity) == 5
    assert second.validity == ((1.0, 0.0),)
    assert ("a\n", "bb") in seen
    read = len("P:a\nbb\n") + len("P:c")  # one pass over each text says where the teacher would write the same
    assert cost.generated_tokens == 4 and cost.teacher_forward_tokens == 3 + len("P:") * 2 + len("P:a\n") + read
    assert cost.student_tokens == len("P:c")


# -- the family -----------------------------------------------------------------------------------------------------

NAN = float("nan")


def weights_of(validity, segment_id=None, **settings):
    """The weights for validities [N, 2] that proposals gave."""
    n = len(validity)
    tokens = dataclasses.replace(random_tokens(seed=0, keep=slice(0, n)), validity=torch.tensor(validity))
    if segment_id is not None:
        tokens = dataclasses.replace(tokens, segment_id=torch.tensor(segment_id))
    return method(validity="verifier", **settings).weight(tokens)


def test_a_perfect_teacher_and_checker_weigh_by_the_students_errors_alone():
    """Under the difference and a hard gate exactly the steps count where the student's own would be wrong."""
    wrong = [True, False, False, True, False]
    found = weights_of([[1.0, 0.0 if w else 1.0] for w in wrong], gate="hard", ceiling=1.0)
    assert found.tolist() == [float(w) for w in wrong]


@pytest.mark.parametrize(
    ("relative", "r"),
    [
        ("difference", lambda t, s: t - s),
        ("log_odds", lambda t, s: math.log(t / (1 - t)) - math.log(s / (1 - s))),
        ("ratio", lambda t, s: math.log((t + 0.01) / (s + 0.01))),
        ("cases", lambda t, s: 2 * t * (1 - s) - 1),
    ],
)
def test_relative_validity_in_closed_form(relative, r):
    pairs = [(0.9, 0.2), (0.3, 0.8), (0.5, 0.5)]
    found = weights_of([list(p) for p in pairs], relative=relative, gate="tanh", kappa=0.7, floor=0.2, ceiling=1.7)
    expected = [0.2 + 1.5 * (1 + math.tanh(0.7 * r(*pair))) / 2 for pair in pairs]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_four_cases_are_set_one_by_one():
    every = [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    settings = {"relative": "cases", "gate": "clip", "kappa": 1.0, "ceiling": 1.0}
    assert weights_of(every, **settings).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert weights_of(every, both=0.0, student_only=0.5, neither=1.0, **settings).tolist() == [0.5, 1.0, 0.75, 1.0]


@pytest.mark.parametrize("relative", ["difference", "log_odds", "ratio", "cases"])
def test_unknown_validity_is_no_gap(relative):
    assert weights_of([[NAN, 1.0], [NAN, NAN]], relative=relative).tolist() == [1.0, 1.0]


def test_extreme_validities_stay_finite():
    for relative in ("difference", "log_odds", "ratio", "cases"):
        found = weights_of([[1.0, 0.0], [0.0, 1.0]], relative=relative, kappa=1000.0)
        assert torch.isfinite(found).all() and found.tolist() == pytest.approx([2.0, 0.0], abs=1e-6)


def test_a_weight_falls_on_the_rest_of_the_text():
    tokens = random_tokens(seed=0)  # of 8 and 5 tokens
    values = torch.tensor([[1.0, 0.0]] * 4 + [[1.0, 1.0]] * 9)
    tokens = dataclasses.replace(tokens, validity=values)
    found = method(validity="verifier", gate="clip", kappa=1.0, scope="rest").weight(tokens)
    plain = [2.0] * 4 + [1.0] * 4
    running = [sum(plain[: i + 1]) / (i + 1) for i in range(8)]
    assert found.tolist() == pytest.approx([*running, *[1.0] * 5])
    assert method(validity="verifier", scope="rest").needs.whole


def test_the_own_step_teaches_where_the_student_alone_is_valid():
    tokens = dataclasses.replace(random_tokens(seed=0), source=(Source.STUDENT, Source.TEACHER))
    tokens.validity = torch.tensor([[0.0, 1.0]] * 2 + [[1.0, 1.0]] * 6 + [[0.0, 1.0]] * 5)
    settings = {"validity": "verifier", "relative": "cases", "student_only": 1.0}
    own = method(own_step=True, **settings).objective(tokens)
    base = method(**settings).objective(tokens)
    log_q = tokens.logits.log_softmax(-1).gather(-1, tokens.labels[:, None])[:, 0]
    torch.testing.assert_close(own[:2], -log_q[:2])
    torch.testing.assert_close(own[2:], base[2:])  # on the teacher's text there is no step of its own


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"floor": 2.5}, "method.floor=2.5 is above method.ceiling=2"),
        ({"validity": "verifier", "step": "span"}, "the verifier judges whole lines"),
        ({"own_step": True}, "set method.relative=cases and method.student_only=1"),
        ({"validity": "sucess"}, "is not one of likelihood, verifier, success"),
        ({"proposals": 65}, r"is outside \[1, 64\]"),
    ],
)
def test_contradicting_settings_are_refused_in_a_line(settings, said):
    with pytest.raises(BadInput, match=said):
        method(**settings)


# -- steps of a text ------------------------------------------------------------------------------------------------


def cut(unit, text, span=8):
    return [text[a:b] for a, b in Segments(Letters(), unit, span).places([*map(ord, text)])]


@pytest.mark.parametrize(
    ("unit", "text", "steps"),
    [
        ("line", "a\nb\n\nc", ["a\n", "b\n", "\n", "c"]),
        ("line", "a\n", ["a\n"]),
        ("sentence", "Be it. So?\nYes", ["Be it.", " So?", "\n", "Yes"]),
        ("span", "abcdefg", ["abc", "def", "g"]),
        ("token", "abc", ["a", "b", "c"]),
        ("statement", "x = (1,\n  2)\ny = 1\n", ["x = (1,\n  2)\n", "y = 1\n"]),
        ("statement", 'a = """\nb\n"""\nc\n', ['a = """\nb\n"""\n', "c\n"]),
        ("statement", "a = 1 + \\\n 2\nb", ["a = 1 + \\\n 2\n", "b"]),
        ("statement", "# (\na = ')'\n", ["# (\n", "a = ')'\n"]),
    ],
)
def test_texts_are_cut_into_steps(unit, text, steps):
    assert cut(unit, text, 3) == steps


def test_texts_without_the_unit_are_refused_with_the_others():
    with pytest.raises(BadInput, match=r"none of 2 texts of the teacher has an end of a sentence.*token, line, statem"):
        Segments(Letters(), "sentence").check([[97, 98], [99]], "teacher")
    assert Segments(Letters(), "sentence").check([[97], [97, 46, 98]], "teacher") == []
    assert Segments(Letters(), "span").check([[97]], "teacher") == []
    (said,) = Segments(Letters(), "line").check([[97], [98]], "data")
    assert said == "none of 2 texts of the data has an end of a line before its own: each is one step"


# -- estimators on the generated world ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generators():
    from harness.micro import world
    from harness.models import files
    from harness.models.generate import Generator

    found = {}
    for role in ("student", "teacher"):
        located = files.locate(f"micro:{role}")
        found[role] = Generator(files.load_model(located, "float32", "cpu"), files.load_tokenizer(located))
    prompts = [e for e in world.examples("labelled") if e.meta["family"] == "maths"][:6]
    return found, prompts


def texts_of(generator, prompts):
    asked = [generator.encode(generator.render(e.prompt)) for e in prompts]
    return [
        TrainingSequence(tuple(p), tuple(generator.response_ids(p, e.response, ended=True)), Source.DATA, i)
        for i, (p, e) in enumerate(zip(asked, prompts, strict=True))
    ]


def judged(generators, how, tmp_path=None, times=1):
    from harness.durable import CacheFile
    from harness.micro import world
    from harness.training import validity
    from harness.training.verdicts import GeneratedGrader

    (models, prompts), segments = generators, Segments(generators[0]["student"].tokenizer, "line")
    teacher = models["teacher"]
    estimator = {
        "checker": lambda: CheckerValidity(world.check_step),
        "success": lambda: validity.SuccessValidity(teacher, GeneratedGrader(), how, 72),
        "likelihood": lambda: validity.LikelihoodValidity(teacher),
        "agreement": lambda: validity.AgreementValidity(teacher, how, segments, world.same_step),
        "truth": lambda: validity.TruthValidity(teacher),
    }[how.validity]()
    if tmp_path is not None:
        estimator = validity.Remembered(estimator, CacheFile(tmp_path, {"test": how.validity}))
    made = Proposals(models["student"], teacher, estimator, how, segments, world.check_step)
    costs, texts = [], texts_of(models["student"], prompts)
    for _ in range(times):
        cost = Cost()
        sequences = made.judge(texts, prompts, prompts, 0, cost)
        costs.append((cost.generated_tokens, cost.teacher_forward_tokens))
    return sequences, made, costs


@pytest.mark.parametrize("validity", ["checker", "success", "likelihood", "agreement", "truth"])
def test_every_estimator_scores_steps_between_0_and_1(generators, validity):
    sequences, made, _ = judged(generators, Proposing(validity, tries=2))
    values = torch.tensor([v for s in sequences for v in s.validity])
    assert values.shape[1] == 2 and ((values >= 0) & (values <= 1)).all()
    assert made.report.cost.seconds > 0 and made.report.cost.generated_tokens > 0
    if validity in ("success", "likelihood", "agreement"):
        # The teacher solves nearly all problems and the student few of them, and the estimators see it.
        assert values[:, 0].mean() > 0.9 > values[:, 1].mean() and made.report.auroc > 0.9


def test_the_oracle_is_the_checker_on_exact_data(generators):
    """What the checker says of each proposal, asked again and weighed by hand, are the weights of the oracle."""
    from harness.micro import world

    sequences, made, _ = judged(generators, Proposing())
    _, prompts = generators
    for sequence in sequences:
        v = torch.tensor(sequence.validity)
        tokens = dataclasses.replace(random_tokens(seed=0), validity=v)
        found = method(validity="verifier", relative="cases", gate="hard", ceiling=1.0).weight(tokens)
        for place in made._places(0, sequence, prompts[sequence.example]):
            for author in (Source.TEACHER, Source.STUDENT):
                decoding = Decoding(max_new_tokens=48, stop=("\n",))
                (line,) = made.generators[author].continue_ids([place.before], decoding, [0])
                valid = world.check_step(place.example.meta, place.prefix, line.text.rstrip("\n"))
                assert v[place.start, 0 if author is Source.TEACHER else 1] == valid
            assert float(found[place.start]) == float(v[place.start].tolist() == [1.0, 0.0])


def test_several_proposals_are_averaged_and_sampled_ones_differ(generators):
    sequences, _, _ = judged(generators, Proposing("checker", count=4, temperature=1.0))
    values = {v for s in sequences for _, v in s.validity}
    assert values - {0.0, 1.0} and values <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_what_the_teacher_says_is_kept_by_content_and_charged_every_time(generators, tmp_path):
    how = Proposing("agreement", tries=2)
    first, _, costs = judged(generators, how, tmp_path, times=2)
    again, made, more = judged(generators, how, tmp_path)
    made.estimator.inner = None  # nothing is computed anew
    assert [s.validity for s in first] == [s.validity for s in again]
    assert costs[0][0] == pytest.approx(costs[1][0], rel=0.02) == pytest.approx(more[0][0], rel=0.02)


def test_scores_of_ids_are_those_of_the_forward_pass(generators):
    teacher = generators[0]["teacher"]
    sequences = texts_of(teacher, generators[1])[:3]
    found = teacher.score([(s.prompt, s.response) for s in sequences])
    for s, row in zip(sequences, found, strict=True):
        ids = torch.tensor([[*s.prompt, *s.response]])
        with torch.no_grad():
            log_probs = teacher.model(input_ids=ids).logits[0].log_softmax(-1)
        expected = [log_probs[len(s.prompt) + i - 1, token].item() for i, token in enumerate(s.response)]
        assert row.log_probs == pytest.approx(expected, abs=1e-4)
        likeliest = log_probs[len(s.prompt) - 1 : -1, : teacher.words].argmax(-1).tolist()
        assert row.greedy == tuple(a == b for a, b in zip(likeliest, s.response, strict=True))


@pytest.mark.parametrize("source", list(BOTH))
def test_greedy_proposals_that_a_pass_over_the_text_finds_are_those_that_generation_writes(generators, source):
    """The same steps with and without the pass; with it, less is generated."""
    models, prompts = generators
    texts = [dataclasses.replace(s, source=source) for s in texts_of(models["student"], prompts)]
    made = Proposals(
        models["student"], models["teacher"], None, Proposing(), Segments(models["student"].tokenizer, "line")
    )
    other = BOTH[1 - BOTH.index(source)]
    found, costs = [], []
    for follow in (True, False):
        places = [p for i, s in enumerate(texts) for p in made._places(i, s, prompts[s.example])]
        costs.append(Cost())
        if follow:
            made._follow(other, texts, places, costs[-1])
        made._propose(other, places, 0, costs[-1])
        found.append([p.steps[other][0] for p in places])
    for ours, plain in zip(*found, strict=True):
        assert (ours.ids, ours.text) == (plain.ids, plain.text)
        assert ours.log_prob is plain.log_prob is None or ours.log_prob == pytest.approx(plain.log_prob, abs=1e-4)
    assert costs[0].generated_tokens < costs[1].generated_tokens


# -- what a run tells of its weights --------------------------------------------------------------------------------


def test_a_pass_that_is_the_signal_too_is_charged_once(generators):
    from harness.micro import world
    from harness.training.signals import LiveTeacher

    models, prompts = generators
    student, teacher = models["student"], models["teacher"]
    live = LiveTeacher(teacher.model, len(teacher.tokenizer), torch.device("cpu"))
    texts = texts_of(student, prompts)

    def read(source, reader):
        segments, cost = Segments(student.tokenizer, "line"), Cost()
        made = Proposals(student, teacher, CheckerValidity(world.check_step), Proposing(), segments)
        made.reader = reader
        made.judge([dataclasses.replace(text, source=source) for text in texts], prompts, prompts, 0, cost)
        return cost.teacher_forward_tokens

    whole = sum(len(text.prompt) + len(text.response) for text in texts)
    assert read(Source.STUDENT, None) - read(Source.STUDENT, live) == whole  # the loop charges the signal of own text
    assert read(Source.DATA, None) == read(Source.DATA, live)  # labelled text has its signal from a cache


def test_the_share_of_the_signal_that_is_moved_is_the_total_variation():
    from harness.training.report import WeightReport

    report = WeightReport()
    report.add([2.0, 0.0, 1.0, 1.0])
    assert report.share == pytest.approx((0.25 + 0.25) / 2)
    report.add([0.0, 0.0])  # all held back: nothing to be moved
    report.add([3.0, 3.0])
    assert report.share == pytest.approx(0.125) and sum(report.facts()["shares"]) == pytest.approx(1.0)
    other = WeightReport()
    other.load(report.state())
    assert other.facts() == report.facts() and not other.warnings()
    little = WeightReport()
    little.add([1.0, 1.0, 1.1])
    assert "move 2.2 % of the signal, less than 5 %" in little.warnings()[0]
    assert WeightReport().facts() == {} and not WeightReport().warnings()


def test_auroc_is_the_chance_that_a_valid_step_ranks_higher():
    from harness.training.report import ValidityReport

    report = ValidityReport()
    assert report.auroc is None
    report.compare([0.9, 0.5, 0.5, 0.1, NAN, 0.7], [1.0, 1.0, 0.0, 0.0, 1.0, None])
    assert report.auroc == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    both = ValidityReport.of(ValidityReport.sum([report.state(), report.state()]))
    assert both["auroc"] == report.auroc and both["compared"] == {"valid": 4, "invalid": 4}
