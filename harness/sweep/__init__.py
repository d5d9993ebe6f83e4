"""A grid of methods x tasks x seeds on many processes: cells, executors, retries, one view of it all.

Reading order: ``cells`` (what is to be done), ``jobs`` (one attempt at one cell, in a process of its own), ``local``,
``on_ray`` and ``on_slurm`` (where attempts run), ``sweep`` (who runs next, what is tried again), ``view``.
"""
