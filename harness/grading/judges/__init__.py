"""Judges decide which of two responses is better: served or local models, recorded judgements, simple rules."""
