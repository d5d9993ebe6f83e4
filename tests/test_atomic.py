"""What a user keeps is whole or as it was, whatever interrupts the writing."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import durable
from harness.errors import RunFailed
from harness.leaderboard.formats import update_between_markers

PAGE = "before\n<!-- BEGIN table -->\nold\n<!-- END table -->\nafter\n"

# Writes and is killed at the call that the first word names, as a power cut would end it.
KILLED = """
import os, signal, sys
from pathlib import Path
from harness import durable as atomic
call, path = sys.argv[1:]
setattr(os, call, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
atomic.write(Path(path), b"new" * 100_000)
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_killed_writer_leaves_the_file_as_it_was_and_the_next_one_clears_up(tmp_path, call):
    path = tmp_path / "page.md"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, call, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL and path.read_text() == "old"
    durable.write(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_an_interrupted_table_leaves_the_page_as_it_was(tmp_path, monkeypatch, stop, call):
    path = tmp_path / "page.md"
    path.write_text(PAGE)

    def fail(*_):
        raise stop

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(KeyboardInterrupt if stop is KeyboardInterrupt else RunFailed):
        update_between_markers(path, "new", "table")
    monkeypatch.undo()
    assert path.read_text() == PAGE and list(tmp_path.iterdir()) == [path]
    assert update_between_markers(path, "new", "table") and path.read_text() == PAGE.replace("old", "new")


def test_permissions_links_and_line_ends_stay(tmp_path):
    (tmp_path / "docs").mkdir()
    path, link = tmp_path / "docs/page.md", tmp_path / "page.md"
    path.write_bytes(PAGE.replace("\n", "\r\n").encode())
    path.chmod(0o600)
    link.symlink_to(path)
    assert update_between_markers(link, "new", "table")
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"before\r\n") and path.read_bytes().endswith(b"\r\nafter\r\n")


def test_a_name_as_long_as_a_file_system_takes_is_refused_or_written_whole(tmp_path):
    path = tmp_path / ("n" * 250)
    durable.write(path, b"whole")
    assert path.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [path]


def test_writers_of_one_file_never_mix(tmp_path):
    path = tmp_path / "page.md"
    texts = [bytes([65 + n]) * 200_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: durable.write(path, text), texts * 5))
    assert path.read_bytes() in texts and list(tmp_path.iterdir()) == [Path(path)]
