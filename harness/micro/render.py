"""Prompts for a model without a chat template, by family; the micro models are trained on these texts.

The task files follow the same convention, so that the ids at evaluation are the ids of training.
"""

from harness.types import Prompt


def maths(problem: str) -> Prompt:
    return Prompt(user=problem, plain=f"Problem: {problem}\nSolution:\n")


def code(stub: str) -> Prompt:
    return Prompt(user=stub, plain=stub)


def instruction(text: str) -> Prompt:
    return Prompt(user=text, plain=f"Instruction: {text}\nResponse:\n")
