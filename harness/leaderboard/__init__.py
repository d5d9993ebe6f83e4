"""Records as tables: which records form a row, its statistics, how tables are printed.

The words of ``--view`` and ``--cost`` are defined here, where the command line reads them without loading numpy.
"""

ALL, STEPS, COMPUTE = VIEWS = ("all", "steps", "compute")  # which rows stand together
UNITS = {"flops": "FLOPs", "seconds": "s", "tokens": "tokens"}  # of the cost of a training
DEFAULT_UNIT = "flops"
