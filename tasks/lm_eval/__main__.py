"""Prints the folder of the task files.

lm_eval --include_path "$(python -m harness.tasks.lm_eval)" --tasks harness_amc23 --model hf --model_args pretrained=DIR
"""

from pathlib import Path

print(Path(__file__).parent)
