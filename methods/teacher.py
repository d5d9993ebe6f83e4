"""The teacher itself: the upper reference of the tables; its recovery ratio is 1."""

from harness.method import ReferencePoint


class Teacher(ReferencePoint):
    """The teacher, unchanged: a point of reference, not a method."""

    name, evaluates = "teacher", "teacher"
