"""The commands, one a file: ``add`` declares the words, ``call`` makes the calls and returns what is printed.

A module here imports nothing heavy at its top: the whole surface is built for every ``harness --help``.
"""

NAMES = (  # as `harness --help` shows them
    "run", "sweep", "list", "show", "grade", "check", "table", "compare", "reproduce", "plot", "board", "export", "doctor",
)  # fmt: skip
