"""Model judges: against a real local server that misbehaves, and a tiny model in this process."""

import json
import math
import random
import time

import pytest
from openai_stub import serving

from harness.errors import BadInput
from harness.grading.instruction.length_control import win_rate
from harness.grading.judges.answering import _reply_of
from harness.grading.judges.judgement import PairToJudge
from harness.grading.judges.models import CachedReply, JudgeBudget, JudgementCache
from harness.grading.judges.open_judge import open_judge
from harness.grading.judges.protocols import judge_protocol

FAST = "backoff_s=0.01,timeout_s=1,parallel=1"


def comparisons(n: int, candidate: str = "a good answer") -> list[PairToJudge]:
    return [PairToJudge(f"{i}/0", f"Instruction {i}?", "a bad answer", candidate) for i in range(n)]


def server_judge(url: str, folder, settings: str = FAST, protocol: str = "distillm2"):
    return open_judge(f"openai:stub@{url},{settings}", protocol, folder)


@pytest.mark.parametrize("protocol", ["alpacaeval-1", "alpacaeval-2", "distillm2"])
def test_every_protocol_finds_the_better_answer_in_any_order(tmp_path, protocol):
    with serving() as stub:
        won = server_judge(stub.url, tmp_path, protocol=protocol).judge(comparisons(6))
        lost = server_judge(stub.url, tmp_path, protocol=protocol).judge(
            [PairToJudge("0", f"Instruction {i}?", "a good answer", "a bad answer") for i in range(6)]
        )
        asked = stub.requests()
    winner = 0.9 if protocol == "alpacaeval-2" else 1.0
    assert [j.score for j in won] == pytest.approx([winner] * 6, abs=1e-4)
    assert [j.score for j in lost] == pytest.approx([1 - winner] * 6, abs=1e-4)
    assert all(" first: " in j.words for j in won)  # what the judge wrote stays with its verdict
    assert len(asked) == (24 if protocol == "distillm2" else 12)
    shown_first = {r["messages"][-1]["content"].find("good") < r["messages"][-1]["content"].find("bad") for r in asked}
    assert shown_first == {True, False}


def test_both_orders_expose_a_judge_that_always_prefers_the_first(tmp_path):
    with serving(then="first") as stub:
        judgements = server_judge(stub.url, tmp_path).judge(comparisons(3))
    assert [j.by_order for j in judgements] == [(0.0, 1.0)] * 3
    summary = win_rate(judgements)
    assert summary.win_rate == 0.5 and summary.position_consistency == 0.0 and summary.ties == 3


@pytest.mark.parametrize("trouble", ["429", "500", "503", "garbage", "drop", "hang", "drip"])
def test_passing_trouble_is_tried_again(tmp_path, trouble):
    with serving("ok", trouble, "ok") as stub:
        judgements = server_judge(stub.url, tmp_path).judge(comparisons(2))
        assert len(stub.requests()) == 5  # two comparisons in two orders, and one more attempt
    assert [j.score for j in judgements] == [1.0, 1.0]


@pytest.mark.parametrize(("trouble", "unparsed"), [("400", False), ("nonsense", True), ("empty", True)])
def test_trouble_that_stays_costs_its_item_and_the_next_run_asks_for_it(tmp_path, trouble, unparsed):
    with serving("ok", "ok", trouble) as stub:
        judgements = server_judge(stub.url, tmp_path).judge(comparisons(3))
        assert [j.score for j in judgements] == [1.0, None, 1.0]
        assert judgements[1].unparsed == unparsed and judgements[1].reason
        assert len(stub.requests()) == 6
        again = server_judge(stub.url, tmp_path).judge(comparisons(3))
        assert [j.score for j in again] == [1.0, 1.0, 1.0]
        assert len(stub.requests()) == 7
    assert win_rate(judgements).parse_failure_rate == (1 / 3 if unparsed else 0.0)


def test_a_server_that_never_recovers_costs_one_item_after_all_its_retries(tmp_path):
    with serving("ok", "ok", "500", "500", "500") as stub:
        judge = server_judge(stub.url, tmp_path, FAST + ",retries=2")
        judgements = judge.judge(comparisons(3))
    assert [j.score for j in judgements] == [1.0, None, 1.0]
    assert "HTTP 500: told to answer 500 (3 attempts)" in judgements[1].reason


def test_a_server_that_dies_loses_the_rest_and_another_one_resumes(tmp_path, caplog):
    with serving("ok", "ok", "ok", "ok", "die") as stub:
        judgements = server_judge(stub.url, tmp_path, FAST + ",retries=1").judge(comparisons(20))
    assert [j.score for j in judgements] == [1.0] * 2 + [None] * 18
    assert "not asked" in judgements[-1].reason and "failed in a row" in caplog.text
    with serving() as stub:
        resumed = server_judge(stub.url, tmp_path, "parallel=4,backoff_s=0.01").judge(comparisons(20))
        assert len(stub.requests()) == 36
    assert [j.score for j in resumed] == [1.0] * 20


def test_progress_counts_every_question(tmp_path):
    seen = []
    with serving("400") as stub:
        judge = server_judge(stub.url, tmp_path)
        judge.progress = lambda done, total: seen.append((done, total))
        judge.judge(comparisons(2))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_any_mixture_of_trouble_costs_items_and_never_a_wrong_score(tmp_path):
    words = random.Random(7)
    trouble = [
        words.choice(["ok", "ok", "400", "429", "500", "garbage", "drop", "nonsense", "empty"]) for _ in range(80)
    ]
    with serving(*trouble) as stub:
        settings = "parallel=8,retries=1,backoff_s=0.01"
        scores = [j.score for j in server_judge(stub.url, tmp_path, settings).judge(comparisons(40))]
        assert set(scores) == {1.0, None}
        again = [j.score for j in server_judge(stub.url, tmp_path, settings).judge(comparisons(40))]
        assert again.count(1.0) > scores.count(1.0)
    with serving() as stub:
        assert [j.score for j in server_judge(stub.url, tmp_path).judge(comparisons(40))] == [1.0] * 40


def test_a_refused_key_is_bad_input_and_no_second_question_is_asked(tmp_path):
    with serving(then="401") as stub, pytest.raises(BadInput, match="HTTP 401: told to answer 401"):
        server_judge(stub.url, tmp_path).judge(comparisons(5))


def test_a_server_without_logprobs_is_bad_input_for_the_protocol_that_reads_them(tmp_path):
    with serving(then="nologprobs") as stub, pytest.raises(BadInput, match="logprobs"):
        server_judge(stub.url, tmp_path, protocol="alpacaeval-2").judge(comparisons(5))


def test_the_same_question_is_paid_for_once(tmp_path):
    twice = [*comparisons(2), *comparisons(2)]
    with serving() as stub:
        assert [j.score for j in server_judge(stub.url, tmp_path).judge(twice)] == [1.0] * 4
        server_judge(stub.url, tmp_path).judge(twice)
        assert len(stub.requests()) == 4


@pytest.mark.parametrize("change", ["temperature=0.5", "revision=2026-01", "protocol=alpacaeval-1"])
def test_another_judge_shares_no_answers(tmp_path, change):
    with serving() as stub:
        server_judge(stub.url, tmp_path).judge(comparisons(1))
        before = len(stub.requests())
        other = server_judge(stub.url, tmp_path, f"{FAST},{change}")
        other.judge(comparisons(1))
        assert len(stub.requests()) > before
    assert other.identity() != server_judge(stub.url, tmp_path).identity()


def test_identity_tells_the_judge_and_not_the_machine(tmp_path):
    identity = server_judge("http://127.0.0.1:9/v1", tmp_path).identity()
    assert identity["model"] == "stub" and identity["protocol"] == "distillm2" and identity["orders"] == "both"
    assert "127.0.0.1" not in json.dumps(identity)


def test_over_budget_is_refused_before_the_first_question(tmp_path):
    with serving() as stub:
        judge = server_judge(stub.url, tmp_path, f"{FAST},budget_usd=0.01,price_in=2,price_out=8")
        with pytest.raises(BadInput, match=r"20 questions may cost \$0\.1\d+ .* over budget_usd=0\.01"):
            judge.judge(comparisons(10))
        assert stub.requests() == []


def test_the_budget_holds_against_a_server_that_uses_more_than_estimated(tmp_path):
    # estimated at 100 reply tokens, $0.01, each; the server says 1,000, $0.10
    with serving(then="greedy") as stub:
        settings = f"{FAST},protocol=alpacaeval-1,budget_usd=0.15,price_in=0,price_out=100"
        judgements = server_judge(stub.url, tmp_path, settings).judge(comparisons(10))
        assert len(stub.requests()) == 2
    assert [j.score for j in judgements] == [1.0] * 2 + [None] * 8
    assert "the budget of $0.15 is spent" in judgements[-1].reason


def test_a_budget_without_prices_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="price_in and price_out"):
        server_judge("http://127.0.0.1:9/v1", tmp_path, "budget_usd=1")


def test_a_named_key_is_sent_and_never_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the-key-of-openai")
    monkeypatch.setenv("STUB_KEY", "secret-word")
    with serving() as stub:
        server_judge(stub.url, tmp_path / "without").judge(comparisons(1))
        assert stub.requests()[0]["authorization"] is None
    with serving() as stub:
        judge = server_judge(stub.url, tmp_path, FAST + ",key_env=STUB_KEY")
        judge.judge(comparisons(1))
        assert stub.requests()[0]["authorization"] == "Bearer secret-word"
    assert b"secret-word" not in judge.cache.path.read_bytes()


def test_the_cache_survives_torn_and_foreign_lines(tmp_path):
    cache = JudgementCache(tmp_path, {"judge": "x"})
    cache.add("a", CachedReply(1.0))
    cache.add("b", CachedReply(0.0, "a reply of many words"))
    cache.path.write_bytes(cache.path.read_bytes()[:-9])  # a crash in the middle of the last line
    torn = JudgementCache(tmp_path, {"judge": "x"})
    assert "a" in torn and "b" not in torn
    torn.add("c", CachedReply(0.5))
    with torn.path.open("ab") as file:
        file.write(b'{"key": "d", "share": 7}\n{"key": "e"}\n[]\n\xff\n\n{"key": "f", "share": "1"}\n')
    whole = JudgementCache(tmp_path, {"judge": "x"})
    assert "a" in whole and whole["c"] == CachedReply(0.5)
    assert not any(key in whole for key in "bdef")


def test_openai_itself_needs_a_key(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(BadInput, match="OPENAI_API_KEY"):
        open_judge("openai:gpt-4o", keep=tmp_path)


def test_the_reply_limit_goes_by_the_name_that_the_server_knows(tmp_path):
    with serving() as stub:
        server_judge(stub.url, tmp_path, FAST + ",length_field=max_completion_tokens").judge(comparisons(1))
        assert stub.requests()[0]["max_completion_tokens"] == 1024 and "max_tokens" not in stub.requests()[0]


def test_the_base_url_comes_from_the_environment(monkeypatch, tmp_path):
    with serving() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        assert open_judge(f"openai:stub,{FAST}", keep=tmp_path).judge(comparisons(1))[0].score == 1.0


def test_judgements_are_kept_where_they_can_be(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BadInput, match="cannot write the cache"):
        server_judge("http://127.0.0.1:9/v1", blocked)


@pytest.mark.parametrize("protocol", ["alpacaeval-1", "alpacaeval-2", "distillm2"])
def test_the_longest_reply_is_a_setting_that_enters_the_identity(tmp_path, protocol):
    usual = server_judge("http://127.0.0.1:9/v1", tmp_path, protocol=protocol).identity()
    assert usual["max_tokens"] == {"alpacaeval-1": 100, "alpacaeval-2": 1, "distillm2": 1024}[protocol]
    with serving() as stub:
        judge = server_judge(stub.url, tmp_path, FAST + ",max_tokens=4096", protocol)
        judge.judge(comparisons(1))
        assert {body["max_tokens"] for body in stub.requests()} == {4096}
    assert judge.identity() == usual | {"max_tokens": 4096}
    for wrong in ("0", "-1", "many"):
        with pytest.raises(BadInput, match="max_tokens"):
            server_judge("http://127.0.0.1:9/v1", tmp_path, f"max_tokens={wrong}")


def test_a_reply_that_was_cut_gives_no_verdict_and_says_so(tmp_path):
    with serving(then="cut") as stub:
        (judgement,) = server_judge(stub.url, tmp_path).judge(comparisons(1))
    assert judgement.score is None and judgement.unparsed
    assert judgement.reason.endswith(
        "which was cut at 1024 tokens; a judge that reasons first needs more: --judge …,max_tokens=N"
    )


def test_a_judge_that_thinks_first_is_read_behind_its_thinking(tmp_path):
    with serving(then="think") as stub:
        for protocol in ("alpacaeval-1", "alpacaeval-2", "distillm2"):
            judgements = server_judge(stub.url, tmp_path, FAST + ",max_tokens=512", protocol).judge(comparisons(2))
            assert [j.score for j in judgements] == pytest.approx(
                [0.9 if protocol == "alpacaeval-2" else 1.0] * 2, abs=1e-4
            )


@pytest.fixture(scope="module")
def letter_model(tmp_path_factory):
    """A tiny model folder whose whole vocabulary is two letters, a space for the rest, and the end."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("letters")
    words = Tokenizer(models.WordLevel({"<end>": 0, "<other>": 1, "m": 2, "M": 3}, unk_token="<other>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<end>", unk_token="<other>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=400, bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_local_model_judges_by_its_letters(letter_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    judge = open_judge(f"hf:{letter_model}", "alpacaeval-2", tmp_path)
    identity = judge.identity()
    assert (identity["kind"], identity["model"]) == ("hf", letter_model.name)
    assert len(identity["revision"]) == 64
    scores = [j.score for j in judge.judge(comparisons(3))]

    tokenizer = AutoTokenizer.from_pretrained(letter_model)
    model = AutoModelForCausalLM.from_pretrained(letter_model)
    for c, score in zip(comparisons(3), scores, strict=True):
        (candidate_first,) = judge.protocol.orders(c.instruction)
        shown = (c.candidate, c.reference) if candidate_first else (c.reference, c.candidate)
        turns = judge.protocol.messages(c.instruction, *shown)
        ids = tokenizer("".join(turn["content"] + "\n\n" for turn in turns), return_tensors="pt").input_ids
        with torch.no_grad():
            m, other = model(ids).logits[0, -1, 2:4].softmax(-1).tolist()
        assert score == pytest.approx(m if candidate_first else other, abs=1e-5)

    again = open_judge(f"hf:{letter_model}", "alpacaeval-2", tmp_path)
    assert [j.score for j in again.judge(comparisons(3))] == scores


def test_a_local_model_without_a_verdict_or_room_costs_items(letter_model, tmp_path):
    judge = open_judge(f"hf:{letter_model}", "alpacaeval-1", tmp_path)
    short, long = judge.judge([*comparisons(1), *comparisons(1, candidate="good " * 500)])
    assert short.score is None and short.unparsed
    assert long.score is None and not long.unparsed and "do not fit the judge's context of 400" in long.reason


def test_questions_that_do_not_fit_are_counted_and_the_others_are_asked(letter_model, tmp_path, caplog):
    judge = open_judge(f"hf:{letter_model}", "alpacaeval-2", tmp_path)
    long = [PairToJudge(f"{i}/0", f"Long {i}?", "a bad answer", "good " * 500) for i in range(25)]
    judgements = judge.judge([*long, *comparisons(2)])
    assert [j.score is None for j in judgements] == [True] * 25 + [False] * 2
    assert "25 of 27 questions do not fit the judge's context" in caplog.text and "not asked" not in caplog.text


def test_a_server_that_finds_questions_too_long_is_asked_the_others(tmp_path, caplog):
    with serving(*["toolong"] * 24) as stub:
        judgements = server_judge(stub.url, tmp_path).judge(comparisons(13))
    assert [j.score is None for j in judgements] == [True] * 12 + [False]
    assert "24 of 26 questions do not fit" in caplog.text


def _answer(tokens: list, **usage) -> bytes:
    choice = {"message": {"content": "m"}, "finish_reason": "stop", "logprobs": {"content": tokens}}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


@pytest.mark.parametrize("odd", [math.nan, math.inf, 5.0, "NaN", True])
@pytest.mark.parametrize("token", ["m", "M"])
def test_a_verdict_is_not_made_of_what_is_no_probability(token, odd):
    top = [{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": -2.0}]
    top = [one | ({"logprob": odd} if one["token"] == token else {}) for one in top]
    read = judge_protocol("alpacaeval-2").read
    assert read(_reply_of(_answer([{"token": "m", "top_logprobs": top}]), 5)) is None


def test_a_reply_of_many_tokens_and_odd_counts_costs_little():
    """The text before each token was kept: 18 GB of a reply of 3 MB."""
    tokens = [{"token": "a" * 100, "top_logprobs": []}] * 30_000
    began = time.process_time()
    reply = _reply_of(_answer(tokens, prompt_tokens=10**400, completion_tokens=-5), 5)
    assert reply.first_token == () and time.process_time() - began < 5
    budget = JudgeBudget(limit_usd=1.0, price_in=1.0, price_out=1.0)
    budget.settle(0.0, reply)
    assert budget.spent_usd == 1000.0 and not budget.reserve(0.1)
