"""How fast and how lean the harness is, beside what a researcher would use today: paired, repeated, with the spread.

``python -m results.scripts.bench NAME …`` (or ``make bench``) runs one module of this package a name and writes
``results/bench/NAME.md`` and ``NAME.json``. Both sides of a comparison are processes that work in turn on the same
models, batch and lengths. TRL and Liger have an environment of their own, see :mod:`results.scripts.bench.peers`.
"""

NAMES = ("loss", "train", "generate", "grade", "overhead", "scaling")
