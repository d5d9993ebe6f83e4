"""S-NI: 1,694 items of 37 tasks of Super-NaturalInstructions, by ROUGE-L; 388 have several references.

MiniLLM names the split 11_ after its length of answers; 511 first references are shorter than 11 words.
"""

from harness.grading.instruction.rouge import RougeTask, in_suite


class SuperNaturalInstructions(RougeTask):
    name, version = "sinst", "1"
    licence = "Apache-2.0 (allenai/natural-instructions)"
    dataset = in_suite(
        "sinst/11_/valid.jsonl", "8c62f31543f02f3dc44ceb62436ec633ab7add9a94307a7dd1977f90378576a6", 1694
    )
