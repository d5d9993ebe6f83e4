"""The commands, one a file: ``add`` declares the words, ``call`` makes the calls and returns what is printed.

A module here imports nothing heavy at its top: the whole surface is built for every ``harness --help``.
"""

NAMES = ("run", "list", "show", "grade", "check", "table", "sweep", "doctor")  # as `harness --help` shows them
