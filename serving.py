"""How the web processes read and write: gunicorn keeps the processes, waitress speaks HTTP in each of them.

A request is read whole, by one thread that never blocks, before one of WEB_THREADS threads is given to it;
what its reader does not take at once that same thread writes, at the reader's pace, and that connection's
next request is not read before. So whoever sends nothing, or a byte at a time, or reads so, holds a
connection for the seconds below, and no thread. A thread waits for a reader only with an answer that is
made piece by piece, and of which 16 MB (waitress's own limit) are untaken.

waitress parses, buffers and runs the application. This file says how long and how much it may read, and waits
for the connections with the system's selector: waitress's own loop asks each connection after each event.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from select import POLLIN, POLLOUT
from types import FrameType
from typing import Any

from gunicorn.workers.base import Worker
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import BadRequest, RequestHeaderFieldsTooLarge

MEGABYTE = 1024 * 1024
# A connection's first header, and the rest of one that has begun.
HEADER_SECONDS = 10.0
HEADER_BYTES = 16 * 1024
HEADER_FIELDS = 100
# A body, or an answer that its reader takes slowly: so many seconds, and one more for each KB that passed.
BODY_SECONDS = 20.0
BYTES_PER_SECOND = 1024
# ... and a body no longer than this, however steadily it drips.
BODY_LONGEST_SECONDS = 120.0
CONNECTIONS = 2000
# What all processes together may hold of requests that no thread has read, and of answers that nobody took.
UNREAD_BYTES = 64 * MEGABYTE
UNTAKEN_BYTES = 64 * MEGABYTE
# What a body may be where the application says nothing else.
BODY_BYTES = 6 * MEGABYTE
# Longer than the fronts keep an idle connection (Heroku's router: 90 s): they would send into a closed one.
IDLE_SECONDS = 100.0
# While stopping, an idle connection stays this long, for a request that is already on its way.
LAST_CALL_SECONDS = 2.0
# After a refusal the rest of the body is taken and thrown away, so that the refusal arrives and not a reset.
DISCARD_SECONDS = 10.0
DISCARD_BYTES = 16 * MEGABYTE
_CONTROL_BYTES = 4096
_FIRST_LINE = re.compile(rb"[!-~]+ [!-~\x80-\xff]+( HTTP/1\.[0-9])?")
_NO_TEXT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# Which connection a thread answers just now.
_serving = threading.local()
_log = logging.getLogger("kassa.serving")


class Held:
    """Bytes of requests that are in memory, counted by the reading thread and given back by any."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self._bytes += number

    @property
    def too_many(self) -> bool:
        return self._bytes > self.most


class Rules(Adjustments):
    """waitress's settings, and what this process's connections share."""

    def __init__(self, cfg: Any, told: Mapping[str, Any]) -> None:
        super().__init__(
            threads=cfg.threads,
            backlog=2048,
            recv_bytes=64 * 1024,
            # In memory: a disk need not be there, and the sum is limited below.
            inbuf_overflow=BODY_BYTES * 2,
            max_request_header_size=HEADER_BYTES,
            max_request_body_size=1 << 62,
            # ProxyFix in app.py decides what is believed of these.
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
            ident=None,
        )
        self.held = Held(UNREAD_BYTES // max(1, cfg.workers))
        self.limit_of: Callable[[str, str], int] = told.get("body_limit", lambda method, path: BODY_BYTES)
        # What the application puts on its answers stands on those that are made here, too.
        self.headers: list[tuple[str, str]] = told.get("plain_headers", [])
        self.stopping = False


class Request(HTTPRequestParser):
    """A request as it comes in. `refused`: too large; its header alone goes on, to be answered in words."""

    completed: bool
    empty: bool
    error: Any
    body_rcv: Any
    # waitress names the path in its log lines, of requests without one too.
    path = ""

    def __init__(self, adj: Rules, channel: Channel) -> None:
        super().__init__(adj)
        self.channel = channel
        self.began = time.monotonic()
        self.body_began = 0.0
        self.held = 0
        self.limit: int | None = None
        self.refused = False

    def received(self, data: bytes) -> int:
        taken: int = super().received(data)
        if self.empty:
            # Spaces instead of a first line; empty lines never come as far as here.
            self.empty, self.error = False, BadRequest("Start line is invalid")
        if self.headers_finished and not self.body_began:
            self.body_began = time.monotonic()
        self._count()
        if self.body_rcv is not None and self.error is None:
            self._judge()
        if not self.completed:
            return taken
        # A body that was to be asked for, and has no bytes or is refused, is not asked for.
        self.expect_continue = False
        if self.error is not None or self.refused:
            # What follows is the rest of it, never a request.
            self.channel.refused = True
        else:
            # waitress would read on: a few bytes may be a request, and all of them would wait in memory.
            self.channel.put_by(data[taken:])
        if self.adj.stopping:
            self.headers["CONNECTION"] = "close"
        return len(data)

    def parse_header(self, block: bytes) -> None:
        """Read the header, after refusing what servers on the way may read in another way than this one."""
        first, *lines = block.rstrip(b"\r\n").split(b"\r\n")
        if not _FIRST_LINE.fullmatch(first):
            # waitress's own pattern takes minutes to find out that a long line does not fit.
            raise ParsingError("Start line is invalid")
        if len(lines) > HEADER_FIELDS:
            super().parse_header(b"GET / HTTP/1.0\r\n")
            self.error = RequestHeaderFieldsTooLarge(f"There are more than {HEADER_FIELDS} header fields.")
            self.completed = True
            return
        fields = [_field(line) for line in lines]
        names = Counter(name.lower() for name, _ in fields)
        if names[b"transfer-encoding"] > 1 or names[b"host"] > 1:
            raise ParsingError("A header field is given twice.")
        coded = [value.lower() for name, value in fields if name.lower() == b"transfer-encoding"]
        if coded and (names[b"content-length"] or not first.endswith(b" HTTP/1.1")):
            raise ParsingError("Transfer-Encoding is not taken here.")
        try:
            super().parse_header(b"".join(b"%b\r\n" % line for line in (first, *map(b":".join, fields))))
        except ValueError as error:
            raise ParsingError("An address or a length is invalid.") from error
        if coded and coded != [b"chunked"]:
            raise ParsingError("Transfer-Encoding is not taken so.")

    def _count(self) -> None:
        grown = self.header_bytes_received + self.body_bytes_received - self.held
        self.held += grown
        self.adj.held.add(grown)

    def _judge(self) -> None:
        """Refuse a body by what it says of its length, and by what has come of it."""
        size = max(self.content_length, self.body_bytes_received)
        if self.limit is None and size > 0:
            self.limit = self.adj.limit_of(self.command, self.path)
        if self.limit is not None and size > self.limit:
            self._refuse(size)
        elif self.chunked and len(self.body_rcv.control_line) + len(self.body_rcv.trailer) > _CONTROL_BYTES:
            self.error = BadRequest("A chunk's line is too long.")
            self.completed = True

    def _refuse(self, size: int) -> None:
        """Let the application answer: it sees a length beyond the limit, and no body."""
        self.refused = self.completed = True
        self.close()
        self.body_rcv = None
        self.headers["CONTENT_LENGTH"] = str(size)
        self.headers["CONNECTION"] = "close"

    def close(self) -> None:
        super().close()
        given, self.held = self.held, 0
        self.adj.held.add(-given)


def _field(line: bytes) -> tuple[bytes, bytes]:
    """A header line's name and value; blanks around it would cost waitress their number squared."""
    name, colon, value = line.partition(b":")
    if not colon or line[:1] in b" \t" or _NO_TEXT.search(line):
        raise ParsingError("Invalid header")
    return name, value.strip(b" \t")


class Refusal(ErrorTask):
    """What is answered to a request that the application never sees."""

    def __init__(self, channel: Channel, request: Request) -> None:
        super().__init__(channel, request)
        self.response_headers += channel.adj.headers


class Channel(HTTPChannel):
    """One connection, with its deadlines."""

    error_task_class = Refusal
    close_when_flushed: bool
    will_close: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.idle_since = time.monotonic()
        self.asked = False
        self.refused = False
        self.discarding_until = 0.0
        self.discarded = 0
        self.ahead = b""
        self.sending_since = 0.0
        self.sent = 0
        super().__init__(*args, **kwargs)

    def parser_class(self, adj: Rules) -> Request:
        return Request(adj, self)

    def received(self, data: bytes) -> bool:
        if self.request is None:
            # Empty lines before a request are passed over, and are no request yet.
            data = data.lstrip(b"\r\n")
        if not data:
            return False
        self.asked = True
        self.idle_since = time.monotonic()
        if self.discarding_until:
            self.discarded += len(data)
            self.will_close = self.discarded > DISCARD_BYTES
            return False
        took: bool = super().received(data)
        if self.adj.held.too_many:
            self.server.make_room()
        return took

    def put_by(self, data: bytes) -> None:
        """What came after a request waits unread until the answer is taken; at most one read's bytes."""
        self.adj.held.add(len(data) - len(self.ahead))
        self.ahead = data

    def go_on(self) -> None:
        """Read what was put by, once nothing before it is still to be answered or taken."""
        if self.ahead and not self.requests and not self.total_outbufs_len:
            wasyncore.read(self)

    def recv(self, buffer_size: int) -> bytes:
        came: bytes = self.ahead or super().recv(buffer_size)
        self.put_by(b"")
        return came

    def readable(self) -> bool:
        return not self.ahead and bool(super().readable())

    def send(self, data: bytes, do_close: bool = True) -> int:
        sent: int = super().send(data, do_close=do_close)
        self.sent += sent
        return sent

    def handle_write(self) -> None:
        if not (self.refused and self.close_when_flushed):
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if not self.total_outbufs_len and self.connected and not self.will_close:
            self.close_when_flushed = False
            self.discarding_until = time.monotonic() + DISCARD_SECONDS
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def handle_close(self) -> None:
        if self.request is not None:
            self.request.close()
        self.put_by(b"")
        super().handle_close()

    def service(self) -> None:
        _serving.channel = self
        super().service()
        self.idle_since = time.monotonic()

    @property
    def idle(self) -> bool:
        """Whether it asked, was answered, and has sent nothing since."""
        return self.asked and self.request is None and not self.busy

    @property
    def coming(self) -> int:
        """Bytes in memory of what is not whole yet, or not read yet."""
        return len(self.ahead) + (self.request.held if self.request is not None else 0)

    @property
    def settled(self) -> bool:
        """Whether the reading thread need not look at it: all is written, and it is listened to."""
        return not self.busy and bool(self._map.mask(self._fileno) & selectors.EVENT_READ)

    @property
    def busy(self) -> bool:
        """Whether what it waits for can change without an event of its own."""
        written = self.requests or self.ahead or self.total_outbufs_len
        return bool(written or self.will_close or self.close_when_flushed)

    def overdue(self, now: float, stopping: bool) -> str:
        """Why this connection has had its time; "" while it has not."""
        if self.discarding_until:
            return "refused" if now > self.discarding_until else ""
        if self.total_outbufs_len:
            self.idle_since = now
            return self._reads_too_slowly(now)
        self.sending_since = 0.0
        if self.requests or self.ahead or self.close_when_flushed:
            self.idle_since = now
            return ""
        if self.request is not None:
            return self._sends_too_slowly(self.request, now)
        patience = IDLE_SECONDS if self.asked else HEADER_SECONDS
        if stopping:
            patience = LAST_CALL_SECONDS if self.asked else 0.0
        return "idle" if now - self.idle_since >= patience else ""

    def _reads_too_slowly(self, now: float) -> str:
        if not self.sending_since:
            self.sending_since, self.sent = now, 0
        allowed = BODY_SECONDS + self.sent / BYTES_PER_SECOND
        return "slow reader" if now - self.sending_since > allowed else ""

    def _sends_too_slowly(self, request: Request, now: float) -> str:
        self.idle_since = now
        if not request.headers_finished:
            return "slow header" if now - request.began > HEADER_SECONDS else ""
        allowed = min(BODY_SECONDS + request.body_bytes_received / BYTES_PER_SECOND, BODY_LONGEST_SECONDS)
        return "slow body" if now - request.body_began > allowed else ""

    def say(self, status: str, words: str, more: str = "") -> None:
        """A last word to whoever is still sending, as far as it goes out at once; then the end."""
        body = words.encode()
        more += "".join(f"{name}: {value}\r\n" for name, value in self.adj.headers)
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n{more}"
        with suppress(OSError):
            self.socket.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.handle_close()


class Listener(TcpWSGIServer):
    """A socket that all web processes share, and the connections this one took from it."""

    channel_class = Channel

    def __init__(self, worker: WebWorker, sock: socket.socket) -> None:
        self.worker = worker
        where = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(
            worker.wsgi, worker.map, True, sock,
            dispatcher=worker.threads, adj=worker.rules, sockinfo=where, bind_socket=False,
        )  # fmt: skip

    def getsockname(self) -> tuple[str, str]:
        if self.family == socket.AF_UNIX:
            return ("localhost", "0")
        name: tuple[str, str] = super().getsockname()
        return name

    def set_socket_options(self, conn: socket.socket) -> None:
        if self.family != socket.AF_UNIX:
            super().set_socket_options(conn)

    def fix_addr(self, addr: Any) -> Any:
        return addr if self.family != socket.AF_UNIX else ("localhost", None)

    def readable(self) -> bool:
        return bool(self.accepting) and len(self.active_channels) < self.worker.most_connections

    def handle_accept(self) -> None:
        super().handle_accept()
        self.leave_a_place()

    def leave_a_place(self) -> None:
        """At the most connections, the one that is idle for longest goes: whoever comes next gets in."""
        if len(self.active_channels) < self.worker.most_connections:
            return
        idle = [channel for channel in self.active_channels.values() if channel.idle]
        if idle:
            self.worker.closed["idle, for another"] += 1
            min(idle, key=lambda channel: channel.idle_since).handle_close()

    def pull_trigger(self) -> None:
        """Wake the reading thread, unless the thread that asks has left nothing to do: most have."""
        channel = getattr(_serving, "channel", None)
        if channel is None or not channel.settled:
            super().pull_trigger()

    def make_room(self) -> None:
        """There is too much in memory: the largest body that is still coming goes, so that forms get in."""
        largest = max(self.active_channels.values(), key=lambda channel: channel.coming, default=None)
        if largest is None or not largest.coming:
            return
        self.worker.closed["no room"] += 1
        if largest.ahead:
            # An answer is under way there: words of ours would land in the middle of it.
            largest.handle_close()
            return
        words = "Too much is being sent here just now. Please try again in a minute.\n"
        largest.say("503 Service Unavailable", words, "Retry-After: 60\r\n")


class Map(dict[int, Any]):
    """waitress's register of what it waits for, kept in step with the selector."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__()
        self._selector = selector
        self._masks: dict[int, int] = {}

    def __setitem__(self, descriptor: int, waiting: Any) -> None:
        super().__setitem__(descriptor, waiting)
        self.watch(descriptor, selectors.EVENT_READ)

    def __delitem__(self, descriptor: int) -> None:
        self.watch(descriptor, 0)
        super().__delitem__(descriptor)

    def mask(self, descriptor: int) -> int:
        return self._masks.get(descriptor, 0)

    def watch(self, descriptor: int, mask: int) -> None:
        """Wait for `mask`, in as few calls to the system as it takes."""
        before = self._masks.get(descriptor, 0)
        if mask == before:
            return
        if not mask:
            self._selector.unregister(descriptor)
            del self._masks[descriptor]
            return
        change = self._selector.modify if before else self._selector.register
        change(descriptor, mask, self[descriptor])
        self._masks[descriptor] = mask


class WebWorker(Worker):
    """gunicorn's worker: its processes, signals and graceful end, around waitress's channels."""

    alive: bool

    def init_process(self) -> None:
        self.equip()
        super().init_process()

    def equip(self) -> None:
        """What each process needs of its own, after the fork."""
        self.selector = selectors.DefaultSelector()
        self.map = Map(self.selector)
        self.closed: Counter[str] = Counter()
        self.busy: set[Channel] = set()
        self.most_connections = _descriptors(CONNECTIONS)
        # It tells of each request that waits for a thread.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    def run(self) -> None:
        self.rules = Rules(self.cfg, getattr(self.wsgi, "extensions", {}))
        self.threads = ThreadedTaskDispatcher()
        self.threads.set_thread_count(self.cfg.threads)
        self.listeners = [Listener(self, bound.sock) for bound in self.sockets]
        # Signals write here, and so end a wait.
        self.selector.register(self.PIPE[0], selectors.EVENT_READ, None)
        next_round = 0.0
        while self.alive:
            self.turn()
            now = time.monotonic()
            if now >= next_round:
                next_round = now + 1.0
                self.look_after(now)
                self.alive = self.alive and self.ppid == os.getppid()
        self.drain()

    def turn(self, seconds: float = 1.0) -> None:
        """Wait, do what can be done, and note what each connection waits for next."""
        touched: set[Any] = set()
        for key, events in self.selector.select(seconds):
            waiting = key.data
            if waiting is None:
                os.read(self.PIPE[0], 4096)
                continue
            touched.add(waiting)
            if waiting._fileno in self.map:
                self._serve(waiting, events)
        for waiting in [*touched, *(self.busy - touched), *self.listeners]:
            self._wait_for(waiting)

    def _serve(self, waiting: Any, events: int) -> None:
        flags = 0
        if events & selectors.EVENT_READ:
            if waiting.readable():
                flags = POLLIN
            else:
                self.map.watch(waiting._fileno, selectors.EVENT_WRITE if waiting.writable() else 0)
        if events & selectors.EVENT_WRITE and waiting.writable():
            flags |= POLLOUT
        if flags:
            wasyncore.readwrite(waiting, flags)

    def _wait_for(self, waiting: Any) -> None:
        if isinstance(waiting, Channel):
            waiting.go_on()
        descriptor = waiting._fileno
        known = descriptor is not None and self.map.get(descriptor) is waiting
        if not known:
            self.busy.discard(waiting)
            return
        if isinstance(waiting, Channel):
            # Asked first: a thread that is done a moment later wakes us, and finds the connection still here.
            (self.busy.add if waiting.busy else self.busy.discard)(waiting)
        # Who is being answered seldom sends: only if it does, `_serve` stops listening to it meanwhile.
        mask = selectors.EVENT_READ
        if not waiting.readable():
            mask &= self.map.mask(descriptor)
        if waiting.writable():
            mask |= selectors.EVENT_WRITE
        self.map.watch(descriptor, mask)

    def look_after(self, now: float) -> None:
        """Once a second: tell gunicorn that all is well, and end what has had its time."""
        self.notify()
        untaken = 0
        channels = [waiting for waiting in list(self.map.values()) if isinstance(waiting, Channel)]
        for channel in channels:
            why = channel.overdue(now, self.rules.stopping)
            if why:
                self._end(channel, why)
            untaken += channel.total_outbufs_len
        if untaken > UNTAKEN_BYTES // max(1, self.cfg.workers):
            self._end(max(channels, key=lambda channel: channel.total_outbufs_len), "slow reader")
        for listener in self.listeners:
            listener.leave_a_place()
        if len(channels) >= self.most_connections:
            _log.warning("no room for more connections", extra={"open": len(channels)})
        for why in set(self.closed) - {"idle"}:
            _log.info("connections closed: %s", why, extra={"count": self.closed[why], "open": len(channels)})
        self.closed.clear()

    def _end(self, channel: Channel, why: str) -> None:
        self.closed[why] += 1
        if why.startswith("slow") and channel.request is not None:
            channel.say("408 Request Timeout", "This took too long to arrive here. Please send it again.\n")
        else:
            channel.handle_close()
        self.busy.discard(channel)

    def drain(self) -> None:
        """Take no more connections, answer what was asked, and end."""
        for listener in self.listeners:
            # Its socket alone: threads still wake this loop by its trigger.
            wasyncore.dispatcher.close(listener)
        self.listeners = []
        self.rules.stopping = True
        ends = time.monotonic() + self.cfg.graceful_timeout - 1.0
        while any(isinstance(waiting, Channel) for waiting in self.map.values()) and time.monotonic() < ends:
            self.turn(0.1)
            self.look_after(time.monotonic())
        self.threads.shutdown(timeout=max(0.5, ends - time.monotonic()))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.alive = False


def _descriptors(wanted: int) -> int:
    """How many connections this process may have, after asking the system for the files that they are."""
    spare = 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + spare:
        more = wanted + spare if hard == resource.RLIM_INFINITY else min(hard, wanted + spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        soft = more
    return wanted if soft == resource.RLIM_INFINITY else max(10, min(wanted, soft - spare))
