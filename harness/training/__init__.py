"""One loop for every method, and what it stands on: text, layout, teacher signals, checkpoints, cost."""
