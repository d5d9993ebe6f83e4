"""Grades programs: extracts them from a text, runs them in the sandbox, compares with the canonical solution."""
