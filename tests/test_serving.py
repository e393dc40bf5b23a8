"""What a web process takes from its connections: whole requests, within limits, and no thread before that.

The process's own loop runs here in a thread, around a small application, less patient than in real life.
"""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from gunicorn.config import Config
from gunicorn.glogging import Logger

import serving

LIMIT = 100_000
LARGE = 3_000_000


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Says what it was given; /large is more than the system's own buffers take, /slow takes its time."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > LIMIT:
        # As the application's gate does, before anything is read.
        start_response("413 Too Large", [("Content-Length", "9")])
        return [b"too large"]
    body = environ["wsgi.input"].read()
    if "slow" in environ["PATH_INFO"]:
        time.sleep(0.5)
    large = "large" in environ["PATH_INFO"]
    answer = [b"x" * (LARGE // 30)] * 30 if large else [f"{len(body)} bytes".encode()]
    start_response("200 OK", [("Content-Length", str(sum(map(len, answer))))])
    return answer


class Process:
    """One web process, as gunicorn would keep it."""

    def __init__(self, threads: int) -> None:
        config = Config()
        for name, value in (("threads", threads), ("workers", 1), ("graceful_timeout", 4)):
            config.set(name, value)
        self.bound = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = self.bound.getsockname()[1]
        worker = serving.WebWorker(
            0, os.getppid(), [SimpleNamespace(sock=self.bound)], None, 30, config, Logger(config)
        )
        worker.equip()
        worker.wsgi = _Application()
        worker.PIPE = os.pipe()
        self.worker = worker
        self.thread = threading.Thread(target=worker.run, daemon=True)
        self.thread.start()
        wait_until(lambda: getattr(worker, "listeners", None))

    def connect(self, take: int | None = None) -> socket.socket:
        connection = socket.socket()
        if take:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, take)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def ask(self, path: str = "/", body: bytes | None = None) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as browser:
            browser.request("GET" if body is None else "POST", path, body)
            answer = browser.getresponse()
            return answer.status, answer.read()

    def stop(self) -> None:
        self.worker.alive = False
        os.write(self.worker.PIPE[1], b"1")
        self.thread.join(10)
        assert not self.thread.is_alive()


class _Application:
    """What Flask's application looks like from here."""

    extensions = {
        "body_limit": lambda method, path: LIMIT,
        "plain_headers": [("X-Content-Type-Options", "nosniff")],
    }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return application(environ, start_response)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts processes; `start(threads=1)`."""
    started: list[Process] = []

    def one(threads: int = 1) -> Process:
        started.append(Process(threads))
        return started[-1]

    yield one
    for process in started:
        if process.thread.is_alive():
            process.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become tenths; the process looks once a second."""
    monkeypatch.setattr(serving, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(serving, "BODY_SECONDS", 0.5)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side ends the connection."""
    came = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return came
        if not piece:
            return came
        came += piece


def until(connection: socket.socket, end: bytes) -> bytes:
    """All that comes until it ends so; header and body may come apart."""
    came = b""
    while not came.endswith(end) and (piece := connection.recv(65536)):
        came += piece
    return came


POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
NOSNIFF = b"\r\nX-Content-Type-Options: nosniff\r\n"


def test_silence_and_slow_requests_hold_no_thread(start: Callable[..., Process]) -> None:
    process = start(threads=1)
    openings = (b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", POST + b"Content-Length: 50\r\n\r\na=", POST)
    for opening in openings * 5:
        process.connect().sendall(opening)
    began = time.monotonic()
    assert process.ask() == (200, b"0 bytes")
    assert process.ask(body=b"a=1") == (200, b"3 bytes")
    assert time.monotonic() - began < 1


def test_who_reads_slowly_holds_no_thread(start: Callable[..., Process]) -> None:
    process = start(threads=1)
    readers = [process.connect(take=2048) for _ in range(5)]
    for reader in readers:
        reader.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.recv(1) == b"H"
    assert process.ask() == (200, b"0 bytes")
    # Nothing is lost by it: the rest comes when it is asked for.
    assert len(rest_of_answer(readers[0])) == LARGE


def rest_of_answer(reader: socket.socket) -> bytes:
    came = b""
    while b"\r\n\r\n" not in came:
        came += reader.recv(65536)
    body = came.partition(b"\r\n\r\n")[2]
    while len(body) < LARGE:
        body += reader.recv(65536)
    return body


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("opening", "last"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nX-A: ", b"HTTP/1.1 408 "),
        (POST + b"Content-Length: 5000\r\n\r\na", b"HTTP/1.1 408 "),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5000\r\na", b"HTTP/1.1 408 "),
    ],
    ids=["silent", "header", "body", "chunked"],
)
def test_what_takes_too_long_is_ended(start: Callable[..., Process], opening: bytes, last: bytes) -> None:
    process = start()
    connection = process.connect()
    connection.sendall(opening)
    began = time.monotonic()
    # Dripping on does not help.
    stop = threading.Event()
    dripping = threading.Thread(target=drip, args=(connection, stop)) if opening else None
    if dripping:
        dripping.start()
    try:
        came = rest(connection)
    finally:
        stop.set()
        if dripping:
            dripping.join()
    assert came.startswith(last) and bool(came) == bool(last)
    assert 0.4 < time.monotonic() - began < 3.5


def drip(connection: socket.socket, stop: threading.Event) -> None:
    while not stop.wait(0.1):
        try:
            connection.send(b"a")
        except OSError:
            return


@pytest.mark.usefixtures("impatient")
def test_a_long_body_that_comes_steadily_is_taken(start: Callable[..., Process]) -> None:
    process = start()
    connection = process.connect()
    connection.sendall(POST + b"Content-Length: 40000\r\nConnection: close\r\n\r\n")
    for _ in range(20):
        connection.sendall(b"a" * 2000)
        time.sleep(0.08)
    assert rest(connection).endswith(b"40000 bytes")


@pytest.mark.usefixtures("impatient")
def test_who_takes_an_answer_too_slowly_is_ended(start: Callable[..., Process]) -> None:
    process = start()
    reader = process.connect(take=2048)
    reader.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: process.worker.busy)
    wait_until(lambda: reader.recv(1) and not process.worker.busy)
    assert len(rest(reader)) < LARGE


@pytest.mark.parametrize("size", [LIMIT + 1, 50_000_000])
def test_a_length_beyond_the_limit_is_refused_unread(start: Callable[..., Process], size: int) -> None:
    process = start()
    connection = process.connect()
    connection.sendall(POST + f"Content-Length: {size}\r\nExpect: 100-continue\r\n\r\n".encode())
    assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert process.worker.rules.held._bytes == 0


def test_the_refusal_arrives_though_the_body_is_still_on_its_way(start: Callable[..., Process]) -> None:
    """A reset would take the words from whoever reads the answer after having sent all."""
    status, words = start().ask(body=b"a" * 2_000_000)
    assert (status, words) == (413, b"too large")


def test_what_follows_a_refused_length_is_no_request(start: Callable[..., Process]) -> None:
    process = start()
    connection = process.connect()
    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    connection.sendall(POST + b"Content-Length: 900000\r\n\r\n" + hidden * 3)
    connection.shutdown(socket.SHUT_WR)
    assert rest(connection).count(b"HTTP/1.1 ") == 1


def test_who_asks_before_sending_is_told_to_go_on(start: Callable[..., Process]) -> None:
    connection = start().connect()
    connection.sendall(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
    assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"a=1")
    assert rest(connection).endswith(b"3 bytes")


@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n"])
def test_who_asks_and_has_nothing_to_send_is_answered(start: Callable[..., Process], length: bytes) -> None:
    connection = start().connect()
    for _ in range(2):
        connection.sendall(POST + length + b"Expect: 100-continue\r\n\r\n")
        assert until(connection, b"0 bytes").startswith(b"HTTP/1.1 200 ")


def test_requests_that_come_together_are_answered_in_turn(start: Callable[..., Process]) -> None:
    connection = start(threads=4).connect()
    first = POST + b"Content-Length: 3\r\n\r\na=1"
    connection.sendall(first * 3 + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    came = rest(connection)
    assert (came.count(b"3 bytes"), came.endswith(b"0 bytes")) == (3, True)


def test_what_came_together_is_read_one_at_a_time(start: Callable[..., Process]) -> None:
    """Thousands of requests fit into one read: as many objects in memory would be nobody's count."""
    process = start(threads=1)
    connection = process.connect()
    slow = b"GET /slow HTTP/1.1\r\n\r\n"
    connection.sendall(slow + b"GET / HTTP/1.1\r\n\r\n" * 2000)
    wait_until(lambda: process.worker.listeners[0].active_channels)
    (channel,) = process.worker.listeners[0].active_channels.values()
    wait_until(lambda: channel.requests)
    assert (len(channel.requests), channel.request) == (1, None)
    assert 20_000 < process.worker.rules.held._bytes <= 66_000
    connection.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert rest(connection).count(b"HTTP/1.1 200 ") == 2002
    wait_until(lambda: process.worker.rules.held._bytes == 0)


def test_who_does_not_take_the_answers_gets_no_thread_for_more(start: Callable[..., Process]) -> None:
    process = start(threads=2)
    readers = [process.connect(take=2048) for _ in range(3)]
    for reader in readers:
        reader.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 12)
        assert reader.recv(1) == b"H"
    assert process.ask() == (200, b"0 bytes")
    (listener,) = process.worker.listeners
    assert max(channel.total_outbufs_len for channel in listener.active_channels.values()) < LARGE + 1000
    # Each of the twelve comes when the one before has been taken.
    assert rest_of_answers(readers[0], 12) == 12 * LARGE


def rest_of_answers(reader: socket.socket, number: int) -> int:
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    taken = 0
    while taken < number * LARGE:
        taken += reader.recv(1 << 20).count(b"x")
    return taken


def test_chunks_are_counted_while_they_come(start: Callable[..., Process]) -> None:
    process = start()
    connection = process.connect()
    connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    piece = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
    for _ in range(10):
        connection.sendall(piece)
    assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert process.worker.rules.held._bytes == 0


@pytest.mark.parametrize("line", [b"5;" + b"x" * 20_000, b"0\r\nx: " + b"y" * 20_000])
def test_what_is_around_chunks_has_an_end(start: Callable[..., Process], line: bytes) -> None:
    connection = start().connect()
    connection.sendall(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + line)
    assert rest(connection).startswith(b"HTTP/1.1 400 ")


GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NOTHING = b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "asked",
    [
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\n" + CHUNKED + NOTHING,
        b"POST / HTTP/1.2\r\nConnection: keep-alive\r\n" + CHUNKED + NOTHING,
        b"POST / HTTP/2.0\r\nConnection: keep-alive\r\n\r\n",
        b"POST /\r\nConnection: keep-alive\r\n" + CHUNKED + NOTHING,
        POST + b"Content-Length: 5\r\n" + CHUNKED + NOTHING,
        POST + CHUNKED + b"content-length: 0\r\n" + NOTHING,
        POST + CHUNKED * 2 + NOTHING,
        POST + b"Transfer-Encoding: chunked, chunked\r\n" + NOTHING,
        POST + b"Transfer-Encoding: \r\n" + NOTHING,
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        GET + b"X-A: b\r\n c\r\n\r\n",
        GET + b"X-A: b\r\n\tc: d\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        GET + b"Host: y\r\n\r\n",
        GET + b"X-A : b\r\n\r\n",
        GET + b"X-A\r\n\r\n",
        GET + b"X-A: \0\r\n\r\n",
        b"GET http://[x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://\xe2\x84\x80/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\t HTTP/1.1\r\nHost: x\r\n\r\n",
        POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: \r\n\r\n",
        b" \r\n\r\n",
    ],
)
def test_what_others_may_read_in_another_way_is_refused(
    start: Callable[..., Process], asked: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    connection = start().connect()
    connection.sendall(asked + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    came = rest(connection)
    assert came.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert came.count(b"HTTP/1.") == 1
    assert came.count(NOSNIFF) == 1, "what the application puts on its answers is on this one, too"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "asked",
    [
        b"GET x://" + b"1" * 15_000 + b" bad\r\n\r\n",
        GET + b"X-A:" + b" " * 15_000 + b"b\r\nConnection: close\r\n\r\n",
        GET + b"X-A:" + b" " * 15_000 + b"\0\r\n\r\n",
        b"\r\n" * 30_000 + GET + b"Connection: close\r\n\r\n",
        b" \r\n\r\n" * 13_000,
    ],
    ids=["address", "blanks", "blanks before no text", "empty lines", "lines of blanks"],
)
def test_a_header_is_read_in_a_time_like_its_length(start: Callable[..., Process], asked: bytes) -> None:
    """One thread reads for all: what keeps it busy keeps everybody waiting."""
    process = start()
    connection = process.connect()
    began = time.process_time()
    connection.sendall(asked)
    assert rest(connection).startswith(b"HTTP/1.")
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize(("number", "status"), [(100, b" 200 "), (101, b" 431 ")])
def test_header_fields_have_a_number(start: Callable[..., Process], number: int, status: bytes) -> None:
    connection = start().connect()
    fields = b"".join(b"X-%d: a\r\n" % each for each in range(number - 2))
    connection.sendall(GET + fields + b"Connection: close\r\n\r\n")
    assert status in until(connection, b"\r\n\r\n")[:20]


def test_headers_are_counted_while_more_is_awaited(start: Callable[..., Process]) -> None:
    process = start()
    header = POST + b"X-A: " + b"a" * 10_000 + b"\r\n"
    for more in (b"", b"Content-Length: 50\r\n\r\n"):
        connection = process.connect()
        connection.sendall(header + more)
        wait_until(lambda: process.worker.rules.held._bytes > 10_000)
        connection.close()
        wait_until(lambda: process.worker.rules.held._bytes == 0)


def test_a_header_has_an_end(start: Callable[..., Process]) -> None:
    connection = start().connect()
    connection.sendall(b"GET / HTTP/1.1\r\nX-A: " + b"a" * (serving.HEADER_BYTES + 1))
    came = rest(connection)
    assert b" 431 " in came and NOSNIFF in came


def test_the_largest_body_makes_room_for_the_others(
    start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "UNREAD_BYTES", 150_000)
    process = start()
    first, second = process.connect(), process.connect()
    for connection, size in ((first, 90_000), (second, 80_000)):
        connection.sendall(POST + b"Content-Length: 95000\r\n\r\n" + b"a" * size)
    came = rest(first)
    assert came.startswith(b"HTTP/1.1 503 ") and NOSNIFF in came
    assert process.ask(body=b"a=1") == (200, b"3 bytes")
    second.sendall(b"a" * 15_000)
    assert second.recv(4096).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: process.worker.rules.held._bytes == 0)


def test_a_broken_off_body_gives_its_room_back(start: Callable[..., Process]) -> None:
    process = start()
    connection = process.connect()
    connection.sendall(POST + b"Content-Length: 90000\r\n\r\n" + b"a" * 50_000)
    wait_until(lambda: process.worker.rules.held._bytes > 50_000)
    connection.close()
    wait_until(lambda: process.worker.rules.held._bytes == 0)


def test_no_more_connections_than_allowed(start: Callable[..., Process]) -> None:
    process = start()
    process.worker.most_connections = 3
    held = [process.connect() for _ in range(3)]
    wait_until(lambda: len(process.worker.listeners[0].active_channels) == 3)
    waiting = process.connect()
    waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
    waiting.settimeout(0.3)
    with pytest.raises(TimeoutError):
        waiting.recv(1)
    held[0].close()
    waiting.settimeout(5)
    assert waiting.recv(4096).startswith(b"HTTP/1.0 200 ")


def test_at_the_most_connections_the_longest_idle_goes(start: Callable[..., Process]) -> None:
    process = start()
    process.worker.most_connections = 4
    empty, first, second = (process.connect() for _ in range(3))
    empty.sendall(b"\r\n\r\n")
    for connection in (first, second, first):
        connection.sendall(GET + b"\r\n")
        assert until(connection, b"0 bytes").startswith(b"HTTP/1.1 200 ")
    sending = process.connect()
    sending.sendall(POST + b"Content-Length: 3\r\n\r\na=")
    # The second asked before the first did for the last time; an empty line is no request, and waits for one.
    assert rest(second) == b""
    assert process.ask() == (200, b"0 bytes")
    sending.sendall(b"1")
    assert until(sending, b"3 bytes").startswith(b"HTTP/1.1 200 ")
    assert {channel.asked for channel in process.worker.listeners[0].active_channels.values()} == {
        True,
        False,
    }


@pytest.mark.usefixtures("impatient")
def test_an_empty_line_is_no_request(start: Callable[..., Process]) -> None:
    connection = start().connect()
    began = time.monotonic()
    connection.sendall(b"\r\n\r\n")
    assert rest(connection) == b""
    assert time.monotonic() - began < 3


def test_no_line_about_a_request_tells_its_token(
    app: Flask,
    start: Callable[..., Process],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = start()
    capsys.readouterr()

    def fail(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise ValueError("no")

    monkeypatch.setattr(process.worker.listeners[0], "application", fail)
    for path in (f"/account/reset/{'aB3_-' * 5}", "/door/aB3_-/enter"):
        assert process.ask(path)[0] == 500
    told = capsys.readouterr().out
    assert "Exception while serving /account/reset/***" in told
    assert "Exception while serving /door/***/enter" in told
    assert "aB3_-" not in told


def test_stopping_answers_what_was_asked_and_nothing_new(start: Callable[..., Process]) -> None:
    process = start(threads=2)
    idle, silent, slow, large = (process.connect() for _ in range(4))
    idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert until(idle, b"0 bytes").startswith(b"HTTP/1.1 200 ")
    slow.sendall(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na=")
    wait_until(lambda: process.worker.rules.held._bytes > 2)
    large.sendall(b"GET /slow-large HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: process.worker.busy)
    (listener,) = process.worker.listeners
    stopping = threading.Thread(target=process.stop)
    stopping.start()
    assert rest(silent) == b""
    slow.sendall(b"1")
    came = rest(slow)
    assert came.endswith(b"3 bytes") and b"connection: close" in came.lower()
    # A request that was already on its way over an idle connection is answered, too.
    idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert rest(idle).endswith(b"0 bytes")
    # What a thread has to wait for is written to its end, too; it wakes the loop by a pipe of its own.
    assert len(rest_of_answer(large)) == LARGE
    assert not listener.trigger._closed
    stopping.join(10)


def test_many_requests_over_few_connections_all_come_back(start: Callable[..., Process]) -> None:
    """A thread that is done just as the connection is put aside must not leave it there."""
    process = start(threads=4)
    failures: list[BaseException] = []

    def many() -> None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", process.port, timeout=5)) as browser:
                for number in range(150):
                    browser.request("POST", "/", b"a" * (number % 7))
                    assert browser.getresponse().read() == f"{number % 7} bytes".encode()
        except (OSError, AssertionError) as failure:
            failures.append(failure)

    visitors = [threading.Thread(target=many) for _ in range(6)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(30)
    assert failures == []


def wait_until(true: Callable[[], object], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
