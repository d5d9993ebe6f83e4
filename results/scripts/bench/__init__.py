"""Speed and memory of the harness against the tools a researcher would use today: paired, repeated, with the spread.

``python -m results.scripts.bench NAME …`` (or ``make bench``) runs the named modules of this package; each writes
``results/bench/NAME.md`` and ``NAME.json``. Both sides of a comparison are processes that work in turn on the same
models, batch and lengths. TRL and Liger run in an environment of their own (:mod:`results.scripts.bench.peers`).
"""

NAMES = ("loss", "train", "generate", "grade", "overhead", "scaling", "validity")
