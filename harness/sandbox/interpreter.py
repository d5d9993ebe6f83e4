"""The modules that a program may import: the standard library and NumPy, and no other installed package."""

from __future__ import annotations

import os
import sys
import sysconfig
from importlib import import_module
from importlib.machinery import FileFinder
from pkgutil import get_importer

PACKAGES = ("site-packages", "dist-packages")  # installed packages below the folder of the standard library
# Imported before the process is confined: modules linked to a shared library could not find it afterwards, and a fork
# is faster than an import.
_LOADED = """
    array ast bisect bz2 calendar cmath collections.abc copy ctypes dataclasses datetime decimal difflib enum
    fractions functools hashlib heapq io itertools json lzma math numbers operator queue random re sqlite3
    statistics string struct sys textwrap threading time timeit traceback types typing unicodedata unittest uuid
    zlib zoneinfo
"""


def load_modules() -> None:
    """Imports the modules that programs use most."""
    for name in _LOADED.split():
        try:
            import_module(name)
        except ImportError:
            continue  # an interpreter built without it; a program that imports it fails, as it would anywhere


def without_packages(folders: list[str]) -> list[str]:
    """The entries of ``folders`` without installed packages: Landlock cannot hide a part of a readable folder.

    Imports list their folders, which Landlock then refuses; so the import system's cached listings are filled here.
    """
    for path in folders:
        finder = get_importer(path)
        if isinstance(finder, FileFinder):
            finder.find_spec("no such module")  # caches the listing until the folder changes
    entries = [os.path.join(path, name) for path in folders for name in os.listdir(path) if name not in PACKAGES]
    return sorted(path for path in entries if os.path.exists(path))


def directories() -> list[str]:
    """The folders of the standard library, without those below another of them."""
    paths = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *sys.path}
    kept: list[str] = []
    for path in sorted(path for path in paths if os.path.isdir(path)):
        if not any(path.startswith(parent + "/") for parent in kept):
            kept.append(path)
    return kept


def load_numpy(packages: str) -> list[str]:
    """Imports NumPy from the folder ``packages`` and returns its folders; [] where it is not installed.

    evalplus depends on NumPy, so programs may expect it.
    """
    sys.path.append(packages)
    try:
        import_module("numpy")
    except ImportError:
        return []
    finally:
        sys.path.remove(packages)
    folders = (os.path.join(packages, name) for name in ("numpy", "numpy.libs"))
    return [path for path in folders if os.path.isdir(path)]
