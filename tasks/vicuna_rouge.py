"""VicunaEval: the 80 Vicuna questions with the reference answers of MiniLLM's archive, by ROUGE-L.

Which model wrote the reference answers is not stated there. vicuna_bench asks the same questions of a judge.
"""

from harness.grading.instruction.rouge import RougeTask, in_suite


class VicunaRouge(RougeTask):
    name, version = "vicuna_rouge", "1"
    licence = "Apache-2.0 (questions, lm-sys/FastChat)"
    dataset = in_suite("vicuna/valid.jsonl", "04f5fabc7e2660a778ef86f7d2779f69a8f108b892074517566b7d714a269c3a", 80)
