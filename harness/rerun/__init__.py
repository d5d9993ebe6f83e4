"""Repeats a recorded row: reconstructs its command, and measures how far a second run differs."""
