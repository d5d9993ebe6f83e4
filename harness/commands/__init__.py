"""The commands, one a file: ``add`` declares the words, ``call`` makes the calls and returns what is printed.

A module here imports nothing heavy at its top: the whole surface is built for every ``harness --help``.
"""

# As `harness --help` shows them.
NAMES = ("run", "sweep", "list", "show", "verify", "grade", "check", "table", "compare", "reproduce", "plot", "board")
NAMES += ("export", "doctor")
