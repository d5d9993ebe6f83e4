"""MT-Bench: 80 questions of two turns in eight categories; a judge rates each of the 160 answers from 1 to 10.

As in FastChat's llm_judge with single-answer grading: the second turn is asked after the model's own first answer, the
sampling temperature depends on the category, the judge sees the whole conversation and, for maths, reasoning and code,
reference answers that GPT-4 wrote (not checked golds), and the score is the mean of all ratings.
"""

import dataclasses

from harness.grading.instruction.rated_turns import RatedTurns
from harness.task import Dataset
from harness.types import Decoding

QUESTIONS = Dataset(
    local="mt_bench/question.jsonl",
    repository="lm-sys/FastChat",
    commit="0e6d3e4beaab66f4d3f93db72541a4abab8af28d",
    path="fastchat/llm_judge/data/mt_bench/question.jsonl",
    sha256="119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    n=80,
)


class MTBench(RatedTurns):
    """Mean rating of two turns, with FastChat's judge prompts."""

    name, version = "mt_bench", "1"
    paper = "https://arxiv.org/abs/2306.05685"
    licence = "Apache-2.0"
    note = "At the task's own temperature, 0.7, every category has FastChat's, 0 to 0.7; any other holds for all."
    decoding = Decoding(temperature=0.7, max_new_tokens=1024)
    temperatures = {
        "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0, "stem": 0.1,
        "humanities": 0.1,
    }  # fmt: skip
    referenced = ("math", "reasoning", "coding")
    dataset = QUESTIONS
    references = dataclasses.replace(
        QUESTIONS,
        local="mt_bench/reference_answer/gpt-4.jsonl",
        path="fastchat/llm_judge/data/mt_bench/reference_answer/gpt-4.jsonl",
        sha256="f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
        n=30,
    )
