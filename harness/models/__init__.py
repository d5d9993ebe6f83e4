"""Language models: found and loaded, their head in chunks, their text, their place in lm-eval."""
