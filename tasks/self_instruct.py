"""SelfInst: 242 instructions of Self-Instruct's user-oriented set, each with the answer that a person wrote.

MiniLLM left out the ten longest prompts of the 252.
"""

from harness.grading.instruction.rouge import RougeTask, in_suite


class SelfInstruct(RougeTask):
    name, version = "self_instruct", "1"
    licence = "Apache-2.0 (yizhongw/self-instruct)"
    dataset = in_suite("self-inst/valid.jsonl", "18922e8ac8a6034ecf0ec8026e24473a30297aaa2e7182d6beb56682586af525", 242)
