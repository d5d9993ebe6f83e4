"""From a task and completions to a score: opening, asking, grading, reading strangers' samples."""
