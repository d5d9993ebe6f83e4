"""The student before training: the lower reference of the tables; its recovery ratio is 0."""

from harness.method import ReferencePoint


class Untouched(ReferencePoint):
    """The student before any training: a point of reference, not a method."""

    name, evaluates = "untouched", "student"
