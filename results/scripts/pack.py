"""Packs the completions of published records: one ``.jsonl.gz`` a run, read like the plain file.

    python -m results.scripts.pack [FOLDER ...]

Records keep the checksum of the completions themselves, so none of them changes. What is packed already is left
alone; new runs write plain files until this is run on their folder.
"""

from __future__ import annotations

import sys

from harness.records.store import Store
from results.scripts.regrade import FOLDERS

if __name__ == "__main__":
    for folder in sys.argv[1:] or FOLDERS:
        before, after = Store(folder).pack()
        print(f"{folder}: {before:,} bytes packed into {after:,}")
