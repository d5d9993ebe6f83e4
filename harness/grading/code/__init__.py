"""Programs: taken from a text, run in the sandbox, held against what the canonical solution gives."""
