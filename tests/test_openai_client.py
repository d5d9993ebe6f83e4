"""The one HTTP client: which addresses and keys it takes, and what a hostile or broken server can do to it."""

import contextlib
import itertools
import json
import random
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from harness.cli import main
from harness.errors import BadInput
from harness.grading.judges.open_judge import open_judge
from harness.models import files
from harness.models.openai_client import (
    LONGEST_WAIT_S,
    ClientOptions,
    OpenAIClient,
    Unanswered,
    address_of,
    key_for,
    retry_after,
    split_name,
)

ONCE = ClientOptions(timeout_s=0.6, retries=0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.contextmanager
def listening(behave):
    """A server on a port of its own that hands each connection to ``behave``; yields (URL, requests seen)."""
    server, seen = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection):
        with contextlib.suppress(OSError), connection:
            behave(connection, seen)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", seen
    finally:
        server.close()


def answering(*pieces, every_s=0.0):
    """Reads the request's head, then sends the pieces, of which there may be no end."""

    def behave(connection, seen):
        seen.append(connection.recv(65536))
        for piece in pieces[0] if len(pieces) == 1 and not isinstance(pieces[0], bytes) else pieces:
            connection.sendall(piece)
            time.sleep(every_s)

    return behave


def ask(url, options=ONCE):
    return OpenAIClient("m", url, options).request("/chat/completions", {"q": 1}, lambda content: content)


def test_an_answer_is_read_whole():
    for answer in (OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"):
        with listening(answering(answer)) as (url, seen):
            assert ask(url) == b"{}"
            assert seen[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n") and b"Authorization" not in seen[0]


def endless(first, piece):
    return itertools.chain([first], itertools.repeat(piece))


SLOW = {
    "status line": (b"H", b"T"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a"),
    "header lines": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    "body without length": (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "error body": (b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n", b" "),
}


@pytest.mark.parametrize("what", SLOW)
def test_one_deadline_covers_every_dripped_byte(what):
    with listening(answering(endless(*SLOW[what]), every_s=0.02)) as (url, _):
        began = time.monotonic()
        with pytest.raises(Unanswered, match=r"no reply within 0\.6 s|more than 100 headers"):
            ask(url)
        assert time.monotonic() - began < 2.0


FAST = {
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"A: " + b"b" * 60_000 + b"\r\n"),
    "one endless header": endless(b"HTTP/1.1 200 OK\r\nA: ", b"b" * 60_000),
    "endless interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    "endless body": endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 60_000),
    "endless chunks": endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 9000),
    "endless trailers": endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n" * 9000),
    "huge length": [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n{}"],
    "odd length": [b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 6000 + b"\r\n\r\n"],
    "huge chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 60 + b"\r\n{}"],
    "negative chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n"],
    "no http": [b"SSH-2.0-OpenSSH_9.6\r\n"],
    "nothing": [b""],
}


@pytest.mark.parametrize("what", FAST)
def test_no_answer_outgrows_its_limit(what):
    with listening(answering(FAST[what])) as (url, _):
        began = time.monotonic()
        with contextlib.suppress(Unanswered):  # "odd length" is read to the end of the connection, as RFC 9112 allows
            assert ask(url, ClientOptions(timeout_s=5.0, retries=0)) == b""
            assert what == "odd length"
        assert time.monotonic() - began < 4.0


def test_a_server_that_never_shakes_hands_or_never_reads_is_given_up():
    def stay(connection, seen):
        time.sleep(5)

    with listening(stay) as (url, _):
        for address, body in ((url.replace("http", "https"), {}), (url, {"q": "x" * 50_000_000})):
            began = time.monotonic()
            with pytest.raises(Unanswered, match=r"no reply within 0\.6 s|timed out"):
                OpenAIClient("m", address, ONCE).request("/", body, bytes)
            assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_and_never_followed(status, monkeypatch):
    monkeypatch.setenv("STUB_KEY", "secret-word")
    with listening(answering(OK)) as (other, stolen):
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {other}\x1b[31m\r\nContent-Length: 0\r\n\r\n".encode()
        with listening(answering(answer)) as (url, seen), pytest.raises(Unanswered) as caught:
            ask(url, ClientOptions(timeout_s=2.0, retries=3, key_env="STUB_KEY"))
        assert len(seen) == 1 and b"Bearer secret-word" in seen[0] and stolen == []
    assert f"redirects to {other}" in str(caught.value) and caught.value.refused and "\x1b" not in str(caught.value)


def test_a_redirecting_judge_is_one_line_before_the_second_question(tmp_path):
    answer = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/v1\r\nContent-Length: 0\r\n\r\n"
    with listening(answering(answer)) as (url, seen):
        from test_judge_models import comparisons

        with pytest.raises(BadInput, match=r"redirects to http://127\.0\.0\.1:9/v1"):
            open_judge(f"openai:m@{url},parallel=1", keep=tmp_path).judge(comparisons(4))
        assert len(seen) == 1


def test_what_a_refusal_says_is_one_harmless_line():
    content = json.dumps({"error": {"message": "no\n\x1b[2J\u202e more" + "x" * 500}}).encode()
    head = b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(content)
    with listening(answering(head + content)) as (url, _), pytest.raises(Unanswered) as caught:
        ask(url)
    said = str(caught.value)
    assert said.startswith("HTTP 400: no [2J more") and said.isprintable() and len(said) < 250


def date(seconds):
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("0", 0, 0),
        ("0.5", 0.5, 0.5),
        ("7", 7, 7),
        ("1e30", LONGEST_WAIT_S, LONGEST_WAIT_S),
        ("9" * 400, LONGEST_WAIT_S, LONGEST_WAIT_S),
        ("nan", None, None),
        ("-nan", None, None),
        ("inf", None, None),
        ("-1", None, None),
        ("", None, None),
        (None, None, None),
        ("soon", None, None),
        (55, 10, 55),
        (9999, LONGEST_WAIT_S, LONGEST_WAIT_S),
        (-20, None, None),
        ("Fri, 31 Dec 9999 23:59:59 -9999", None, None),
        ("Mon, 99 Foo 2026 00:00:00 GMT", None, None),
    ],
)
def test_retry_after_is_a_wait_that_can_be_waited(header, low, high):
    found = retry_after(date(header) if isinstance(header, int) else header)  # so many seconds from now
    assert found is None if low is None else low <= found <= high


@pytest.mark.parametrize(
    "header", ["nan", "-5", "soon", date(-99)], ids=["nan", "negative", "word", "past"]
)  # passed, whenever it is read
def test_an_odd_retry_after_falls_back_to_our_own_wait(header):
    answers = iter([f"HTTP/1.1 429 Busy\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode(), OK])
    with listening(lambda connection, seen: answering(next(answers))(connection, seen)) as (url, seen):
        assert ask(url, ClientOptions(timeout_s=2.0, retries=1, backoff_s=0.01)) == b"{}"
        assert len(seen) == 2


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gpt-4o", ("gpt-4o", None)),
        ("m@http://localhost:8000/v1", ("m", "http://localhost:8000/v1")),
        ("m@HTTPS://Host.example/v1", ("m", "HTTPS://Host.example/v1")),
        ("org/m@v1.2@http://127.0.0.1/v1", ("org/m@v1.2", "http://127.0.0.1/v1")),
        ("claude@20240229", ("claude@20240229", None)),
        ("m@v1.2", ("m@v1.2", None)),
        ("m@latest", ("m@latest", None)),
        ("@cf/meta/llama", ("@cf/meta/llama", None)),
    ],
)
def test_a_name_is_a_model_and_an_address(name, found):
    assert split_name(name, "x") == found


@pytest.mark.parametrize(
    "rest",
    ["localhost:8000/v1", "localhost", "127.0.0.1", "127.0.0.1:8000", "llm.example.org", "llm.example.org/v1", "box:1",
     "[::1]:8000/v1", "ftp://host/v1", "//host/v1", "http", "host/v1", "user:pass@host:1/v1"],
)  # fmt: skip
def test_an_address_without_a_scheme_is_refused_with_the_fix(rest, tmp_path, capsys):
    with pytest.raises(BadInput, match=r"has no scheme; write|is neither http:// nor https://$"):
        open_judge(f"openai:m@{rest}", keep=tmp_path)
    with pytest.raises(BadInput, match=r"has no scheme; write|is neither http"):
        files.locate(f"openai:m@{rest}")
    words = ["run", "--method", "untouched", "--task", "gsm8k@micro", "--results", str(tmp_path / "results")]
    assert main([*words, "--student", f"openai:m@{rest}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


LOOPBACK = ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.8.9.1", "[::1]", "localhost."]
ELSEWHERE = ["llm.example.org", "10.0.0.1", "192.168.1.2", "0.0.0.0", "[2001:db8::1]", "127.0.0.1.example.org",
             "localhost.example.org", "127.1", "2130706433", "notlocalhost"]  # fmt: skip


def test_plain_http_reaches_this_machine_alone_unless_said():
    for host in LOOPBACK:
        assert address_of(f"http://{host}:8000/v1/", ClientOptions(), "x").path == "/v1"
    for host in ELSEWHERE:
        with pytest.raises(BadInput, match="plain_http=yes"):
            address_of(f"http://{host}:8000/v1", ClientOptions(), "x")
        assert not address_of(f"http://{host}:8000/v1", ClientOptions(plain_http=True), "x").is_loopback
        assert address_of(f"https://{host}/v1", ClientOptions(), "x").port == 443


@pytest.mark.parametrize(
    "url",
    ["http://", "http://:80/v1", "http://host:port/v1", "http://host:0/v1", "http://host:70000/v1", "http://[::1/v1",
     "https://u:p@host/v1", "https://host/v1?key=1", "https://host/v1#a", "https://ho st/v1", "https://host/\x00",
     "https://host/v1\r\nX: y", "file:///etc/passwd", "https://exämple\n.org"],
)  # fmt: skip
def test_what_is_no_address_is_bad_input(url):
    with pytest.raises(BadInput) as caught:
        address_of(url, ClientOptions(plain_http=True), "x")
    assert str(caught.value).isprintable()


def test_a_key_goes_to_the_host_it_belongs_to(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the-key-of-openai")
    monkeypatch.setenv("OTHER_KEY", " other ")
    plain = ClientOptions(plain_http=True)

    def key(url, name=None):
        options = ClientOptions(key_env=name, plain_http=True)
        return key_for(address_of(url, plain, "x"), options, "x")

    assert key("https://api.openai.com/v1") == "the-key-of-openai"
    assert key("https://API.openai.com:443/v1") == "the-key-of-openai"
    assert key("https://api.openai.com/v1", "OTHER_KEY") == "other"
    strangers = ["http://localhost:8000", "https://api.openai.com.example.org", "https://eu.api.openai.com",
                 "http://api.openai.com", "https://api.openai.com:8443", "https://openai.com",
                 "https://evilapi.openai.com"]  # fmt: skip
    for url in strangers:
        assert key(url) is None
        assert key(url, "OTHER_KEY") == "other"
        with pytest.raises(BadInput, match=r"OPENAI_API_KEY goes only to api\.openai\.com"):
            key(url, "OPENAI_API_KEY")
    with pytest.raises(BadInput, match="no key in NO_SUCH"):
        key("https://host/v1", "NO_SUCH")
    monkeypatch.setenv("OTHER_KEY", "two\nlines")
    with pytest.raises(BadInput) as caught:
        key("https://host/v1", "OTHER_KEY")
    assert "two" not in str(caught.value)


def test_a_served_student_follows_the_same_rules(monkeypatch, tmp_path):
    monkeypatch.setenv("STUB_KEY", "secret-word")
    found = files.locate("openai:m@https://llm.example.org/v1,key_env=STUB_KEY,timeout_s=7")
    assert found.id == "openai:m" and found.client.timeout_s == 7 and found.client.key_env == "STUB_KEY"
    for name, message in (
        ("openai:m@http://llm.example.org/v1", "plain_http=yes"),
        ("openai:m@https://llm.example.org/v1,key_env=NO_SUCH", "no key in NO_SUCH"),
        ("openai:m@https://llm.example.org/v1,colour=red", "unknown setting"),
        ("openai:m@https://llm.example.org/v1,oops", "is not key=value"),
    ):
        with pytest.raises(BadInput, match=message):
            files.locate(name)


def test_https_goes_through_the_proxy_of_the_environment_and_http_does_not(monkeypatch):
    with listening(answering(b"HTTP/1.1 403 No\r\n\r\n")) as (proxy, seen):
        monkeypatch.setenv("https_proxy", proxy.removesuffix("/v1").replace("//", "//me:word@"))
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "inside.example")
        monkeypatch.setenv("STUB_KEY", "secret-word")
        with pytest.raises(Unanswered, match="Tunnel connection failed: 403"):
            ask("https://outside.example/v1", ClientOptions(timeout_s=2.0, retries=0, key_env="STUB_KEY"))
        assert seen[0].startswith(b"CONNECT outside.example:443 ") and b"secret-word" not in seen[0]
        assert b"Proxy-Authorization: Basic bWU6d29yZA==" in seen[0]
        with listening(answering(OK)) as (url, _):
            assert ask(url) == b"{}"
        assert len(seen) == 1


def test_a_proxy_of_another_kind_is_named(monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    for proxy in ("socks5://127.0.0.1:1", "https://127.0.0.1:1", "http://host:port", "http://[::1"):
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(Unanswered, match="https_proxy of the environment"):
            ask("https://outside.example/v1")


def test_a_server_that_wants_a_key_says_how_to_name_it():
    with (
        listening(answering(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")) as (url, _),
        pytest.raises(Unanswered, match=r"no key was sent; .* key_env=NAME"),
    ):
        ask(url)


def test_spoilt_answers_are_read_or_refused_and_nothing_else():
    """Bytes of sound answers, cut, doubled, swapped and replaced, all drawn from a seed."""
    body = b'{"choices": [{"message": {"content": "[[A]]"}}]}'
    chunked = b"%x\r\n%s\r\n0\r\nA: b\r\n\r\n" % (len(body), body)
    sound = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
    ]
    draw, outcomes = random.Random(0), set()

    def spoilt(connection, seen):
        answer = bytearray(draw.choice(sound))
        for _ in range(draw.randint(0, 6)):
            at, size = draw.randrange(len(answer)), draw.randint(1, 12)
            new = draw.choice(
                [b"", draw.randbytes(size), b"\r\n", b"-1", b"9" * 40, b"\x00", answer[at : at + size] * 2]
            )
            answer[at : at + size] = new
            if not answer:
                break
        answering(bytes(answer))(connection, seen)

    with listening(spoilt) as (url, _):
        for _ in range(300):
            try:
                outcomes.add(type(ask(url, ClientOptions(timeout_s=2.0, retries=0))))
            except Unanswered as error:
                assert str(error).isprintable()
                outcomes.add(Unanswered)
    assert outcomes == {bytes, Unanswered}
