"""Runs a grid of methods x tasks x seeds on many processes, with retries and one live view.

Reading order: ``cells`` (the runs of the grid), ``jobs`` (one attempt at one cell, in its own process), ``local``,
``on_ray`` and ``on_slurm`` (where attempts run), ``sweep`` (scheduling and retries), ``view`` (the display).
"""
