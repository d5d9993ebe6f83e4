"""A hub on this machine that takes uploads: what ``huggingface_hub`` asks when it makes a repository and commits.

Repositories are made private or public, small files come inside the commit, weights through LFS before it; a file is
visible only once a commit names it. ``fail`` names a request that is refused.
"""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_this_test"


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, dict] = field(default_factory=dict)  # kind/owner/name: private, head, files, commits
    stored: dict[str, bytes] = field(default_factory=dict)  # LFS objects, by sha256
    asked: list[str] = field(default_factory=list)
    fail: str = ""


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer(self._get, None)

    def do_POST(self):
        self._answer(self._post, self.rfile.read(int(self.headers["Content-Length"] or 0)))

    def do_PUT(self):
        self._answer(self._put, self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, how, body):
        self.hub.asked.append(f"{self.command} {self.path}")
        if self.hub.fail and self.hub.fail in self.path:
            return self._send(500, {"error": "the disk is full"})
        if self.command != "PUT" and self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid credentials in Authorization header"})
        return how(self.path.strip("/").split("/"), body)

    def _get(self, parts, _):
        name = "/".join(parts[1:4])  # api/models/owner/name
        if name not in self.hub.repositories:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        made = self.hub.repositories[name]
        files = [{"rfilename": file} for file in sorted(made["files"])]
        return self._send(200, {"id": "/".join(parts[2:4]), "sha": made["head"], "siblings": files, "tags": []})

    def _post(self, parts, body):
        if parts[1:] == ["repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
            private = asked.get("private", asked.get("visibility") == "private")
            first = {".gitattributes": b""}
            self.hub.repositories[name] = {"private": private, "head": "0" * 40, "files": first, "commits": []}
            return self._send(200, {"url": f"{self.hub.url}/{asked['organization']}/{asked['name']}"})
        if parts[1:] == ["validate-yaml"]:
            return self._send(200, {"errors": [], "warnings": []})
        if parts[-2:] == ["objects", "batch"]:
            wanted = json.loads(body)["objects"]
            actions = [{**one, "actions": {"upload": {"href": f"{self.hub.url}/put/{one['oid']}"}}} for one in wanted]
            return self._send(200, {"transfer": "basic", "objects": actions})
        if parts[4] == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            mode = {True: "lfs", False: "regular"}
            told = [{"path": f, "uploadMode": mode[f.endswith((".safetensors", ".parquet"))]} for f in files]
            return self._send(200, {"files": [{**one, "shouldIgnore": False} for one in told]})
        assert parts[4] == "commit"
        return self._commit(self.hub.repositories["/".join(parts[1:4])], body)

    def _commit(self, made, body):
        lines = [json.loads(line) for line in body.splitlines()]
        head = next(line["value"] for line in lines if line["key"] == "header")
        if head.get("parentCommit", made["head"]) != made["head"]:
            return self._send(412, {"error": "the repository moved on"})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                made["files"][value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                made["files"][value["path"]] = self.hub.stored[value["oid"]]
        made["head"] = hashlib.sha1(body).hexdigest()
        made["commits"].append(head["summary"])
        return self._send(200, {"commitUrl": f"{self.hub.url}/x/y/commit/{made['head']}", "commitOid": made["head"]})

    def _put(self, parts, body):
        assert hashlib.sha256(body).hexdigest() == parts[1]
        self.hub.stored[parts[1]] = body
        return self._send(200, {})

    def _send(self, status, content, more=None):
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(text), **(more or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(text)
