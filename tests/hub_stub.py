"""A hub of data sets on this machine: what ``huggingface_hub`` and ``datasets`` ask of one, answered from a folder.

Commits are folders below ``OWNER/NAME``; the newest by name is the main branch.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@contextlib.contextmanager
def serving(root: Path) -> Iterator[str]:
    """The address of a hub that holds the data sets below ``root``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (_Hub,), {"root": root}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Hub(BaseHTTPRequestHandler):
    root: Path

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        parts = self._parts()
        folder, _ = self._commit(parts, "paths-info")
        if folder is None:
            return self._missing()
        wanted = [path.strip("/") for path in asked.get("paths", ())]
        self._json([self._entry(folder / p, folder) for p in wanted if (folder / p).exists()])

    def do_GET(self):
        parts = self._parts()
        if parts[:1] == ["api"]:
            for word in ("tree", "revision"):
                folder, commit = self._commit(parts, word)
                if folder is not None:
                    break
            else:
                if len(parts) != 4 or not (folder := self._newest(parts[2], parts[3])):
                    return self._missing()
                commit, word = folder.name, "revision"
            files = sorted(p for p in folder.rglob("*") if p.is_file())
            if word == "tree":
                below = folder / "/".join(parts[6:])
                inside = [p for p in sorted(folder.rglob("*")) if below in (p.parent, *p.parents)]
                return self._json([self._entry(p, folder) for p in inside])
            names = [{"rfilename": str(p.relative_to(folder))} for p in files]
            name = f"{parts[2]}/{parts[3]}"
            said = {"id": name, "sha": commit, "siblings": names, "private": False, "tags": [], "downloads": 0}
            return self._json(said)
        folder, commit = self._commit(parts, "resolve")
        path = None if folder is None else folder / "/".join(parts[5:])
        if path is None or not path.is_file():
            return self._missing("RepoNotFound" if path is None else "EntryNotFound")
        self._send(200, path.read_bytes(), "application/octet-stream", commit)

    def _parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _newest(self, owner: str, name: str) -> Path | None:
        commits = sorted((self.root / owner / name).glob("*"))
        return commits[-1] if commits else None

    def _commit(self, parts: list[str], word: str) -> tuple[Path | None, str]:
        """The folder of ``.../OWNER/NAME/word/COMMIT/...``; main is the newest."""
        if word not in parts[3:5] or len(parts) < parts.index(word) + 2:
            return None, ""
        place = parts.index(word)
        owner, name, commit = parts[place - 2], parts[place - 1], parts[place + 1]
        newest = self._newest(owner, name)
        folder = newest if commit == "main" else self.root / owner / name / commit
        return (folder, folder.name) if folder is not None and folder.is_dir() else (None, "")

    @staticmethod
    def _entry(path: Path, folder: Path) -> dict:
        name = str(path.relative_to(folder))
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": name, "oid": _oid(path), "size": path.stat().st_size}

    def _json(self, content) -> None:
        self._send(200, json.dumps(content).encode(), "application/json", "")

    def _missing(self, code: str = "RepoNotFound") -> None:
        self._send(404, b'{"error": "not found"}', "application/json", "", {"X-Error-Code": code})

    def _send(self, status: int, content: bytes, kind: str, commit: str, more=None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        if commit:
            self.send_header("X-Repo-Commit", commit)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
