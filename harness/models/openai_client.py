"""The HTTP client of every OpenAI-compatible server: judges, served students and served teachers.

One POST per question. Transient failures (429, 5xx, a timeout, a dropped connection, a malformed reply) are
retried after a growing wait; others are not. The rules, the same for every server:

* An address has a scheme. Plain ``http`` reaches only this machine, unless ``plain_http=yes`` is set.
* ``OPENAI_API_KEY`` goes to api.openai.com and to no other host. The key of any other server is in an environment
  variable that ``key_env=NAME`` names.
* A redirect is an error that names its target; it is never followed.
* One deadline, ``timeout_s``, covers a whole attempt from the connection to the last byte of the body, headers
  included, and one limit, :data:`REPLY_BYTES`, covers every byte that is read. Only the resolver of host names has
  its own time limit.
* ``https_proxy`` and ``no_proxy`` of the environment are honoured for https, which the proxy cannot read. Plain http
  never goes through a proxy.
"""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import json
import math
import os
import random
import re
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from harness.errors import BadInput
from harness.options import option

OPENAI = "https://api.openai.com/v1"
OPENAI_HOST = "api.openai.com"
OPENAI_KEY = "OPENAI_API_KEY"
LONGEST_WAIT_S = 60.0
PATIENT_S = 3600.0  # allows a long completion on a busy server
REPLY_BYTES = 4_000_000  # of one attempt, headers included; a completion is far smaller
PIECE = 65536  # bytes sent or read at once
PASSING = {408, 409, 425, 429}  # and every 5xx
REFUSALS = {401, 403, 404}  # a wrong key, model or path fails every question
TOO_LONG = re.compile(r"context.{0,10}length|maximum context|too (?:long|large|many tokens)", re.IGNORECASE)
Answer = TypeVar("Answer")


class Unanswered(Exception):
    """The server or model gave no reply to a question.

    ``refused``: it would refuse every other question too (key, model name, redirect). ``of_question``: the cause is
    the question itself, such as its length, and says nothing about the next one.
    """

    def __init__(self, reason: str, refused: bool = False, of_question: bool = False):
        super().__init__(reason)
        self.refused, self.of_question = refused, of_question


class Passing(Exception):
    """A failure worth another attempt, after at least ``wait_s`` seconds where the server names a wait."""

    def __init__(self, reason: str, wait_s: float | None = None):
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class ClientOptions:
    """How to reach a server, how long to wait and how often to retry."""

    key_env: str | None = option(None, "environment variable that holds this server's key")
    plain_http: bool = option(False, "allow http to another machine: sends questions and key unencrypted")
    timeout_s: float = option(120.0, "seconds that one attempt may take in all", low=0.1)
    retries: int = option(5, "further attempts after a 429, 5xx, timeout or broken reply", low=0)
    backoff_s: float = option(1.0, "wait before the first retry, doubled for each further one", low=0)
    length_field: str = option(
        "max_tokens", "what the server calls the limit", choices=("max_tokens", "max_completion_tokens")
    )


def split_name(name: str, where: str) -> tuple[str, str | None]:
    """(model, address) of ``MODEL[@URL]``; the address is None where there is none.

    A version after the last ``@``, as in ``model@20240229``, belongs to the model's name; what looks like an address
    without a scheme is refused. Raises BadInput that begins with ``where``.
    """
    model, *address = re.split(r"@(?=https?:)", name, maxsplit=1, flags=re.IGNORECASE)
    if address:
        if not model:
            raise BadInput(f"{where}: the model's name before @ is missing; write openai:MODEL@{address[0]}")
        return model, address[0]
    model, at, rest = name.rpartition("@")
    if at and model and re.match(r"[A-Za-z][\w+.-]*://", rest):
        raise BadInput(f"{where}: the address {rest!r} is neither http:// nor https://")
    if at and model and not _is_version(rest):
        fix = f"write openai:{model}@http://{rest}" if re.fullmatch(r"[\w.:\[\]-]+(/\S*)?", rest) else "write @http://…"
        raise BadInput(f"{where}: the address {rest!r} has no scheme; {fix} (or https)")
    return name, None


def _is_version(text: str) -> bool:
    """Whether what follows the last @ of a name is a version and no address: no port, no path, no domain."""
    if re.fullmatch(r"localhost|https?|\d+(\.\d+){3}", text, re.IGNORECASE):
        return False
    return re.fullmatch(r"[\w-]+|v?\d+(\.\d+)*[\w-]*", text) is not None


@dataclass(frozen=True)
class Address:
    """Where a server listens. ``path`` begins with / or is empty."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, by its name or its number."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def address_of(url: str, options: ClientOptions, where: str) -> Address:
    """The parts of a server's base URL. Raises BadInput, which begins with ``where``, for one that is not allowed."""
    try:
        parts = urllib.parse.urlsplit(url if url.isprintable() else "")  # urlsplit would drop line ends and tabs
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # a port that is not a number, a broken IPv6 address
        parts, host, port = urllib.parse.urlsplit(""), "", None
    plain = re.fullmatch(r"[\w.:-]+", host) and re.fullmatch(r"[!-~]*", parts.path) and port != 0
    if parts.scheme not in ("http", "https") or not plain:
        raise BadInput(f"{where}: {url!r} is not a server address; write openai:MODEL@http://host:port/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise BadInput(
            f"{where}: an address has no user, password, query or fragment; put the key in an environment variable "
            "and name it with key_env=NAME"
        )
    address = Address(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/"))
    if address.scheme == "http" and not address.is_loopback and not options.plain_http:
        raise BadInput(
            f"{where}: plain http would send questions and key unencrypted to {host}; use https, a tunnel to "
            "localhost, or say plain_http=yes after a comma"
        )
    return address


def key_for(address: Address, options: ClientOptions, where: str) -> str | None:
    """The key of this server, or None. Raises BadInput if the named key cannot be used."""
    ours = (address.scheme, address.host, address.port) == ("https", OPENAI_HOST, 443)
    name = options.key_env or (OPENAI_KEY if ours else None)
    if name is None:
        return None
    if name == OPENAI_KEY and not ours:
        raise BadInput(
            f"{where}: {OPENAI_KEY} goes only to {OPENAI_HOST}; put the key of {address.host} in another variable and "
            "name that with key_env=NAME"
        )
    key = os.environ.get(name, "").strip()
    if not key:
        raise BadInput(f"{where}: no key in {name}; set {name}, or name another server with @http://host:port/v1")
    if not re.fullmatch(r"[!-~]+", key):
        raise BadInput(f"{where}: the key in {name} holds a space or a character that no header can carry")
    return key


class OpenAIClient:
    """A model behind one server. ``request`` is called from many threads; each attempt has its own connection.

    Raises BadInput, which begins with ``where``, for an address or key that the module's rules refuse.
    """

    def __init__(
        self, model: str, url: str, options: ClientOptions, where: str | None = None, reply_bytes: int = REPLY_BYTES
    ):
        where = where or f"openai:{model}"
        self.model, self.options, self.reply_bytes = model, options, reply_bytes
        self.address = address_of(url, options, where)
        self._key = key_for(self.address, options, where)

    def request(
        self, path: str, body: Mapping[str, Any] | None, read: Callable[[bytes], Answer], below_base: bool = True
    ) -> Answer:
        """POSTs ``body`` as JSON to ``path`` below the base URL, or GETs it for None; returns ``read`` of the answer.

        Without ``below_base`` the path is next to OpenAI's ``/v1``. Raises Unanswered when all attempts failed, and
        what ``read`` raises, except that a :class:`Passing` failure is retried.
        """
        content = None if body is None else json.dumps(body).encode()
        base = self.address.path if below_base else self.address.path.removesuffix("/v1")
        attempt = 0
        while True:
            try:
                return read(self._send(f"{base}{path}", content))
            except Passing as trouble:
                if attempt == self.options.retries:
                    raise Unanswered(f"{trouble} ({attempt + 1} attempts)") from None
                time.sleep(self._wait(attempt) if trouble.wait_s is None else trouble.wait_s)
                attempt += 1

    def _wait(self, attempt: int) -> float:
        """The wait in seconds, doubled each time, with 50 % jitter so that parallel requests do not retry in step."""
        return min(self.options.backoff_s * 2 ** min(attempt, 60), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)

    def _send(self, path: str, body: bytes | None) -> bytes:
        """The body of a 2xx answer. Raises Passing or Unanswered for anything else."""
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        deadline = time.monotonic() + self.options.timeout_s
        connection = _Connection(self.address, deadline, _proxy_of(self.address), self.reply_bytes)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            content = b"".join(iter(lambda: answer.read(PIECE), b""))
            if answer.length:  # the body ended before its Content-Length
                raise http.client.IncompleteRead(b"", answer.length)
        except TimeoutError:
            raise Passing(f"no reply within {self.options.timeout_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
            raise Passing(f"{type(error).__name__}: {_shown(str(error))}") from None
        finally:
            connection.finish()
        if 200 <= answer.status < 300:
            return content
        if 300 <= answer.status < 400:
            target = _shown(answer.headers.get("Location") or "an unnamed address")
            raise Unanswered(f"HTTP {answer.status}: the server redirects to {target}, which is not followed", True)
        message = f"HTTP {answer.status}: {_message(content) or _shown(answer.reason)}"
        if answer.status in (401, 403) and not self._key:
            message += " (no key was sent; name the variable that holds this server's with key_env=NAME)"
        if answer.status in PASSING or answer.status >= 500:
            raise Passing(message, retry_after(answer.headers.get("Retry-After")))
        too_long = answer.status == 413 or (answer.status in (400, 422) and TOO_LONG.search(message) is not None)
        raise Unanswered(message, refused=answer.status in REFUSALS, of_question=too_long)


class _Connection(http.client.HTTPConnection):
    """One connection, all of whose waits end at ``deadline`` (time.monotonic)."""

    def __init__(
        self, address: Address, deadline: float, proxy: urllib.parse.SplitResult | None, limit: int = REPLY_BYTES
    ):
        super().__init__(address.host, address.port)
        self._tls = address.scheme == "https"
        self._deadline, self._server, self._limit = deadline, address.host, limit
        self._bare: socket.socket | None = None
        if proxy is not None:
            self.host, self.port = proxy.hostname, proxy.port or 80
            self.set_tunnel(address.host, address.port, _proxy_login(proxy))

    def connect(self) -> None:
        self._bare = self._reach()
        self.sock = _Timed(self._bare, self._deadline, self._limit)
        if self._tunnel_host:
            self._tunnel()
        if self._tls:
            self._bare.settimeout(_seconds_left(self._deadline))  # of the whole handshake
            self._bare = ssl.create_default_context().wrap_socket(self._bare, server_hostname=self._server)
            self.sock = _Timed(self._bare, self._deadline, self._limit)

    def finish(self) -> None:
        """Closes the socket. ``close`` leaves it open, since http.client calls that before the body is read."""
        self.close()
        if self._bare is not None:
            self._bare.close()

    def _reach(self) -> socket.socket:
        """A socket to the first address of the host that answers; all attempts share the deadline."""
        failed: OSError = OSError(f"{self.host} has no address")
        for family, kind, protocol, _, where in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            reached = socket.socket(family, kind, protocol)
            try:
                reached.settimeout(_seconds_left(self._deadline))
                reached.connect(where)
                reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return reached
            except OSError as error:
                reached.close()
                failed = error
        raise failed


def _seconds_left(deadline: float) -> float:
    """The seconds until ``deadline`` (time.monotonic). Raises TimeoutError if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed:
    """A socket for http.client; every wait ends at the deadline, and at most ``limit`` bytes are read."""

    def __init__(self, bare: socket.socket, deadline: float, limit: int):
        self._bare, self._deadline, self._limit, self._unread = bare, deadline, limit, limit

    def sendall(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            self._bare.settimeout(_seconds_left(self._deadline))
            self._bare.sendall(data[start : start + PIECE])

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self), PIECE)

    def close(self) -> None:
        """Leaves the socket open for the streams made of it; :meth:`_Connection.finish` closes it."""

    def receive_into(self, buffer: memoryview) -> int:
        """Raises TimeoutError beyond the deadline, OSError beyond the limit."""
        if self._unread <= 0:
            raise OSError(f"an answer of more than {self._limit} bytes")
        self._bare.settimeout(_seconds_left(self._deadline))
        size = self._bare.recv_into(buffer)
        self._unread -= size
        return size


class _Incoming(io.RawIOBase):
    """The bytes of a :class:`_Timed` socket as a raw stream."""

    def __init__(self, source: _Timed):
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._source.receive_into(buffer)


def _proxy_of(address: Address) -> urllib.parse.SplitResult | None:
    """The proxy that the environment names for this host, None for none. Raises Unanswered for one of another kind."""
    named = urllib.request.getproxies().get("https") if address.scheme == "https" else None
    if not named or urllib.request.proxy_bypass(f"{address.host}:{address.port}"):
        return None
    try:
        proxy = urllib.parse.urlsplit(named if "://" in named else f"http://{named}")
        if proxy.scheme == "http" and proxy.hostname and proxy.port != 0:
            return proxy
    except ValueError:  # a port that is not a number, a broken IPv6 address
        pass
    raise Unanswered("https_proxy of the environment is not http://host:port; name such a proxy, or unset it", True)


def _proxy_login(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    """The header for a proxy that requires a user and a password."""
    if proxy.username is None:
        return {}
    login = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


def _shown(text: str) -> str:
    """A server's message as one line of at most 200 characters without terminal controls."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())[:200]


def _message(content: bytes) -> str:
    """The message in the body of a refusal, on one line: OpenAI's field if there is one, else its text."""
    text = content[:10_000].decode("utf-8", "replace")
    try:
        return _shown(str(json.loads(text)["error"]["message"]))
    except (ValueError, LookupError, TypeError, RecursionError):  # not in OpenAI's form
        return _shown(text)


def retry_after(header: str | None) -> float | None:
    """The wait in seconds that a ``Retry-After`` header requests, at most LONGEST_WAIT_S.

    The header holds seconds or a date. None without a usable value: no header, other text, a
    negative number, a date that has passed.
    """
    text = (header or "").strip()[:100]
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
            seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(seconds, LONGEST_WAIT_S) if math.isfinite(seconds) and seconds >= 0 else None
