"""Runs that are killed at random moments, and long runs watched for memory leaks.

``python -m results.scripts.robustness.kill`` and ``python -m results.scripts.robustness.memory`` exit with code 1 where
something was lost, and print their findings as a page of Markdown.
"""
