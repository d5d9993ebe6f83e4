"""The student as it comes: the floor of every table, and the zero of the recovery ratio."""

from harness.method import ReferencePoint


class Untouched(ReferencePoint):
    """The student before any training: a point of reference, not a method."""

    name, evaluates = "untouched", "student"
