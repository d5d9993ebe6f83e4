"""Serves a board to this machine alone, for browsers that refuse files, and over an SSH tunnel."""

from __future__ import annotations

import http.server
import sys
import webbrowser
from contextlib import suppress
from functools import partial
from pathlib import Path

from harness.errors import BadInput


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: a request is no news."""


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of ``folder`` on 127.0.0.1; port 0 takes a free one. Raises BadInput where the port is taken."""
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(folder)))
    except OSError as error:
        raise BadInput(f"--serve {port}: {error.strerror}; choose another port, or 0 for any free one") from None


def forever(folder: Path, port: int, show: bool = False) -> None:
    """Serves ``folder`` until Ctrl-C; ``show`` opens it in a browser."""
    with server(folder, port) as found:
        address = f"http://127.0.0.1:{found.server_address[1]}/"
        print(f"{address}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        if show:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            found.serve_forever()
