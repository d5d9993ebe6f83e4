"""Grades mathematical answers: extracts them from a text and compares them with the reference in worker processes."""
