"""Checks Python, the installed packages, the optional packages and the browser."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from packaging.requirements import Requirement

from harness.doctor.finding import NOTE, OK, PROBLEM, Finding
from harness.errors import PACKAGE, install

EXTRAS = {  # package: the extra that has it, and what uses it
    "peft": ("peft", "student.adapter, models given as an adapter"),
    "gguf": ("gguf", "models given as a GGUF file, harness fetch small"),
    "ray": ("ray", "harness sweep --executor ray"),
    "submitit": ("slurm", "harness sweep --executor slurm"),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def python() -> Iterator[Finding]:
    """Reports the version only: an older Python could not have imported this file."""
    yield Finding("python", OK, f"{platform.python_version()}, {platform.platform()}")


def versions() -> Iterator[Finding]:
    """Compares installed packages with the requirements and, in a checkout, with the lock file."""
    bad = []
    try:
        wanted = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield Finding("versions", PROBLEM, f"{PACKAGE} is not installed", "pip install -e . in the checkout")
        return
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None:
            bad.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            bad.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if bad:
        yield Finding("versions", PROBLEM, "; ".join(bad), "pip install -e . in the checkout")
        return
    lock = Path(__file__).parents[2] / "requirements.lock"
    if not lock.is_file():
        yield Finding("versions", OK, "all requirements are met; no lock to compare with")
        return
    locks = [lock, lock.with_name("requirements-torch.lock")]
    text = "\n".join(one.read_text("utf-8") for one in locks if one.is_file())
    lines = (line.split("#")[0].strip(" \\") for line in text.splitlines())
    pins = dict(line.split("==", 1) for line in lines if "==" in line)  # lines of hashes name no version
    other = [
        f"{name} {version} (lock: {pin})"
        for name, pin in ((n.split("[")[0], p.split(";")[0].strip()) for n, p in pins.items())
        if (version := _version(name)) is not None and version.partition("+")[0] != pin.partition("+")[0]
    ]
    if other:
        shown = ", ".join(other[:6]) + (f" and {len(other) - 6} more" if len(other) > 6 else "")
        fix = "pip install -r requirements.lock to reproduce published numbers"
        yield Finding("versions", NOTE, f"all requirements are met; {len(other)} differ from the lock: {shown}", fix)
    else:
        yield Finding("versions", OK, f"all requirements are met, {len(pins)} packages as in requirements.lock")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras() -> Iterator[Finding]:
    for name, (extra, use) in EXTRAS.items():
        if util.find_spec(name) is None:
            yield Finding(name, NOTE, "not installed", f"{install(extra)}, for {use}")
        else:
            yield Finding(name, OK, _version(name) or "installed")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        yield Finding("browser", NOTE, "no chromium", "only pictures and tests of the web page need one")
    else:
        yield Finding("browser", OK, Path(browser).name)
