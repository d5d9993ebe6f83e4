"""A programming problem in the row format of EvalPlus, ready for the sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.errors import BadInput
from harness.sandbox.values import dumps

_FIELDS = {"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "base_input": list}
_NO_TESTS: dict[str, Any] = {}  # how MbppPlus.jsonl writes the empty list of Mbpp/793


@dataclass(frozen=True)
class CodeProblem:
    """``inputs`` holds the suites by name, each a list of argument lists as the row has them.

    ``atol`` is the absolute tolerance on floats; 0 where the row asks for none.
    """

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    atol: float
    inputs: Mapping[str, Sequence[Any]]

    @classmethod
    def of(cls, row: Mapping[str, Any], number: int, plus: bool) -> CodeProblem:
        """The problem of row ``number`` (from 1). Raises BadInput naming the row and the field it lacks."""
        fields = _FIELDS | ({"plus_input": list} if plus else {})
        for field, kind in fields.items():
            if not isinstance(row.get(field), kind) and row.get(field) != _NO_TESTS:
                name = row.get("task_id", "without task_id")
                raise BadInput(f"row {number} ({name}): field {field!r} is missing or no {kind.__name__}")
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
        """What a completion continues: the prompt as EvalPlus gives it to a model."""
        return self.prompt.strip() + "\n"

    @cached_property
    def suites(self) -> dict[str, list[str]]:
        """The texts of the inputs by suite, with the types repaired that JSON cannot hold."""
        return {
            suite: [dumps(list(arguments), room=2**30) for arguments in self._repaired(inputs)]
            for suite, inputs in self.inputs.items()
        }

    def _repaired(self, inputs: Sequence[Any]) -> Sequence[Any]:
        if not self.task_id.startswith("Mbpp/"):
            return inputs
        from evalplus.data.mbpp import mbpp_deserialize_inputs

        return mbpp_deserialize_inputs(self.task_id, list(inputs))
