"""Recipes that ship with the harness: who teaches whom, on what, and with which budget (TOML, no logic)."""
