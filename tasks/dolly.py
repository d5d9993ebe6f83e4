"""DollyEval: 500 held-out instructions of databricks-dolly-15k, each with the answer that a person wrote.

The development split of 1,000 (rouge_suite/dolly/dev.jsonl) is for choosing settings; two instructions are in both.
"""

from harness.grading.instruction.rouge import RougeTask, in_suite


class Dolly(RougeTask):
    name, version = "dolly", "1"
    licence = "CC BY-SA 3.0 (databricks-dolly-15k)"
    dataset = in_suite("dolly/valid.jsonl", "f2624572fdde0bec8759e63fecefdc5e38679816464cd57ef563612ccc6acc06", 500)
