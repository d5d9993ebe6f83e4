"""What of this interpreter a program may use: the standard library and NumPy, and no other installed package."""

from __future__ import annotations

import os
import sys
import sysconfig
from importlib import import_module
from importlib.machinery import FileFinder
from pkgutil import get_importer

PACKAGES = ("site-packages", "dist-packages")  # folders of an interpreter that are no part of it
# Loaded before the walls close, since those that link to a shared library could not find it afterwards, and
# since a fork is quicker than an import.
_LOADED = """
    array ast bisect bz2 calendar cmath collections.abc copy ctypes dataclasses datetime decimal difflib enum
    fractions functools hashlib heapq io itertools json lzma math numbers operator queue random re sqlite3
    statistics string struct sys textwrap threading time timeit traceback types typing unicodedata unittest uuid
    zlib zoneinfo
"""


def load_modules() -> None:
    """Import what programs use most."""
    for name in _LOADED.split():
        try:
            import_module(name)
        except ImportError:
            continue  # an interpreter built without it: programs that want it fail as they would outside


def without_packages(folders: list[str]) -> list[str]:
    """What lies in ``folders`` but installed packages: Landlock cannot hide a part of what it shows.

    The folders themselves can no longer be listed then, which imports would do; they are listed here, once.
    """
    for path in folders:
        finder = get_importer(path)
        if isinstance(finder, FileFinder):
            finder.find_spec("no such module")  # it keeps the list until the folder changes
    entries = [os.path.join(path, name) for path in folders for name in os.listdir(path) if name not in PACKAGES]
    return sorted(path for path in entries if os.path.exists(path))


def directories() -> list[str]:
    paths = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *sys.path}
    kept: list[str] = []
    for path in sorted(path for path in paths if os.path.isdir(path)):
        if not any(path.startswith(parent + "/") for parent in kept):
            kept.append(path)
    return kept


def load_numpy(packages: str) -> list[str]:
    """NumPy, which every machine that runs evalplus has, and programs therefore use. Returns its folders."""
    sys.path.append(packages)
    try:
        import_module("numpy")
    except ImportError:
        return []
    finally:
        sys.path.remove(packages)
    folders = (os.path.join(packages, name) for name in ("numpy", "numpy.libs"))
    return [path for path in folders if os.path.isdir(path)]
