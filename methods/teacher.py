"""The teacher itself: the mark that a student is measured by, and the one of the recovery ratio."""

from harness.method import ReferencePoint


class Teacher(ReferencePoint):
    """The teacher as it comes: a point of reference, not a method."""

    name, evaluates = "teacher", "teacher"
