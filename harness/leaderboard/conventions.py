"""Convention cards side by side: what rows should share before their numbers are compared, and whether they do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from harness.leaderboard import labels
from harness.leaderboard.inference import Group

# What a method is free to choose; any other line of two convention cards should agree.
OF_THE_METHOD = {
    "divergence", "mixture_weight_of_teacher", "loss_temperature", "reduction", "token_weights", "teacher_signal",
    "on_policy_share", "buffer_age", "trained",
}  # fmt: skip

DIFFER = "convention cards differ beyond the methods"


def differences(groups: Sequence[Group]) -> list[str]:
    """A line for what the trained rows of one table should share by their cards and do not, with who says what."""
    trained = [group for group in groups if not group.reference]
    keys = dict.fromkeys(key for group in trained for key in group.first["convention"] if key not in OF_THE_METHOD)
    found = []
    for key in keys:
        by_value: dict[str, set[str]] = defaultdict(set)
        for group in trained:
            if key in group.first["convention"]:
                by_value[str(group.first["convention"][key])].add(labels.name_of(group.first["method"]))
        if len(by_value) > 1:
            said = " | ".join(f"{value} ({', '.join(sorted(names))})" for value, names in sorted(by_value.items()))
            found.append(f"{key} {said}")
    return [f"{DIFFER}: {'; '.join(found)}"] if found else []
