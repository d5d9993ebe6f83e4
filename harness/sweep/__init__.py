"""Runs a grid of methods x tasks x seeds on many processes, with retries and one live view.

Reading order: ``jobs`` (the cells of the grid, and one attempt at one of them in its own process), ``executors`` (where
attempts run), ``sweep`` (scheduling, retries and the display).
"""
