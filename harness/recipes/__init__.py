"""Recipes that ship with the harness: models, data and budget (TOML, no logic)."""
