"""Result records: immutable, sealed, append-only, with provenance."""

import os


def default_folder() -> str:
    """The results folder where none is named, by ``--results`` or in Python: HARNESS_RESULTS, else ``results``."""
    return os.environ.get("HARNESS_RESULTS", "results")
