"""Training data: rows from files, folders and the hub, read as prompts, answers and conversations."""
