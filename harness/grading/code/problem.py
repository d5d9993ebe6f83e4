"""A programming problem, parsed from a row in EvalPlus' format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.errors import BadInput
from harness.sandbox.values import dumps

_FIELDS = {"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "base_input": list}
_NO_TESTS: dict[str, Any] = {}  # the empty list of Mbpp/793 in MbppPlus.jsonl


@dataclass(frozen=True)
class CodeProblem:
    """A problem with its test inputs: ``inputs`` maps the name of a suite to its argument lists, as in the row.

    ``atol`` is the absolute tolerance on floats; 0 if the row has none.
    """

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    atol: float
    inputs: Mapping[str, Sequence[Any]]

    @classmethod
    def of(cls, row: Mapping[str, Any], number: int, plus: bool) -> CodeProblem:
        """Parses row ``number`` (from 1). Raises BadInput with the row and the field that is missing or malformed."""
        fields = _FIELDS | ({"plus_input": list} if plus else {})
        for field, kind in fields.items():
            if not isinstance(row.get(field), kind) and row.get(field) != _NO_TESTS:
                name = row.get("task_id", "without task_id")
                raise BadInput(f"row {number} ({name}): field {field!r} is missing or not a {kind.__name__}")
        suites = {"base": list(row["base_input"])} | ({"plus": list(row["plus_input"])} if plus else {})
        return cls(
            task_id=row["task_id"],
            prompt=row["prompt"],
            entry_point=row["entry_point"],
            canonical_solution=row["canonical_solution"],
            atol=float(row.get("atol") or 0),
            inputs=suites,
        )

    @property
    def stub(self) -> str:
        """The prompt that a completion continues, as EvalPlus gives it to a model."""
        return self.prompt.strip() + "\n"

    @cached_property
    def suites(self) -> dict[str, list[str]]:
        """The encoded inputs of each suite, with the types restored that JSON cannot hold."""
        return {
            suite: [dumps(list(arguments), room=2**30) for arguments in self._repaired(inputs)]
            for suite, inputs in self.inputs.items()
        }

    def _repaired(self, inputs: Sequence[Any]) -> Sequence[Any]:
        if not self.task_id.startswith("Mbpp/"):
            return inputs
        from evalplus.data.mbpp import mbpp_deserialize_inputs

        return mbpp_deserialize_inputs(self.task_id, list(inputs))
