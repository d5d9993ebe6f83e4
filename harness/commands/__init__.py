"""The commands, one per file: ``add`` declares the arguments, ``call`` runs the command and returns its output.

Modules here import nothing heavy at the top, because ``harness --help`` builds the parser of every command.
"""

# In the order of `harness --help`.
NAMES = ("run", "sweep", "list", "show", "verify", "grade", "check", "table", "compare", "reproduce", "plot", "board")
NAMES += ("export", "fetch", "doctor", "completion")
