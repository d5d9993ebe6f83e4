"""Training data as people have it: rows from files, folders and the hub, read as prompts, answers and conversations."""
