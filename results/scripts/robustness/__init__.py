"""What hurts a run, on purpose: kills at any moment and long runs watched for leaks. Scripts that anyone can run.

``python -m results.scripts.robustness.kill`` and ``python -m results.scripts.robustness.memory``; both end with exit code 1 where something
was lost, and write what they saw as a page of Markdown.
"""
