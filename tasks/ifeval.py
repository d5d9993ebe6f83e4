"""IFEval: 541 prompts with instructions that a program can check, graded by lm-eval's own checkers.

The score is the share of prompts whose instructions are all followed strictly; the shares of single instructions and of
the loose reading (without the first or last line, or asterisks) are reported too.
"""

from harness.errors import BadInput
from harness.grading.instruction import instruction_checks
from harness.task import Dataset, Task
from harness.types import Decoding, Problem, Prompt, Verdict


class IFEval(Task):
    name, version, family, metric = "ifeval", "1", "instruction", "accuracy"
    grader = "lm-eval's ifeval"
    paper = "https://arxiv.org/abs/2311.07911"
    licence = "Apache-2.0"
    asks_through_lm_eval = False
    extractor = "the whole completion, without the thoughts before the last </think>"
    equivalence = "every instruction of the prompt is followed, strictly"
    decoding = Decoding(max_new_tokens=1280)
    dataset = Dataset(
        local="ifeval/input_data.jsonl",
        repository="josejg/instruction_following_eval",
        commit="0c495b2f95155e8b10acb919ae283bfb4d5be6e2",
        path="instruction_following_eval/data/input_data.jsonl",
        sha256="67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49",
        n=541,
    )

    def problems(self, rows):
        return [self._problem(row, i) for i, row in enumerate(rows)]

    def _problem(self, row, index):
        where = f"{self.data.source}: row {index + 1}"
        kinds, settings = row.get("instruction_id_list"), row.get("kwargs")
        if not isinstance(row.get("prompt"), str) or not isinstance(row.get("key"), int):
            raise BadInput(f"{where} has no text under 'prompt' or no number under 'key'")
        if not isinstance(kinds, list) or not isinstance(settings, list) or not len(kinds) == len(settings) > 0:
            raise BadInput(f"{where}: 'instruction_id_list' and 'kwargs' must be lists of one length")
        if unknown := [kind for kind in kinds if kind not in instruction_checks.known_kinds()]:
            raise BadInput(f"{where}: no checker for the instruction {unknown[0]!r}")
        if not all(isinstance(each, dict) for each in settings):
            raise BadInput(f"{where}: 'kwargs' must hold one object for each instruction")
        # null stands for "not given", as in the files that lm-eval reads.
        stated = tuple({key: value for key, value in each.items() if value is not None} for each in settings)
        instructions = instruction_checks.Instructions(row["key"], row["prompt"], tuple(kinds), stated)
        return Problem(str(row["key"]), Prompt(user=row["prompt"], plain=row["prompt"]), instructions)

    def grade(self, problem, text):
        strict, loose = instruction_checks.followed(problem.reference, text)
        left = [kind for kind, done in zip(problem.reference.kinds, strict, strict=True) if not done]
        reason = f"does not follow {', '.join(left)}" if left else f"follows all {len(strict)} instructions"
        shown = "; ".join("|".join(str(int(done)) for done in way) for way in (strict, loose))
        return Verdict(problem.id, 0, float(not left), reason, shown)

    def measures(self, graded):
        """IFEval's other three numbers, as shares: instructions, and both under the loose reading."""
        ways = [[[mark == "1" for mark in way.split("|")] for way in row["extracted"].split("; ")]
                for row in graded if row["extracted"]]  # fmt: skip
        if not ways:
            return super().measures(graded)
        strict, loose = ([way[i] for way in ways] for i in (0, 1))
        single = {"instructions_strict": strict, "instructions_loose": loose}
        shares = {name: sum(map(sum, way)) / sum(map(len, way)) for name, way in single.items()}
        return super().measures(graded) | shares | {"prompts_loose": sum(map(all, loose)) / len(loose)}

    def grader_identity(self):
        return super().grader_identity() | {"versions": instruction_checks.versions(), "language_seed": 0}

    def gold_completion(self, problem):
        """A text that follows the instructions, or None where none is written here."""
        return instruction_checks.answer(problem.reference)
