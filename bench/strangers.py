"""Strangers who send nothing, or a byte at a time, or read so: and what everybody else notices of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bench.client import percentile
from bench.report import Results
from bench.scenes import Stage, buy_one

# How often each of them sends or takes its byte.
_DRIP_SECONDS = 0.5
# A request of the others that takes longer has failed.
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Crowd:
    """How many of each kind, and for how long."""

    silent: int
    headers: int
    bodies: int
    readers: int
    seconds: float


FULL = Crowd(silent=900, headers=50, bodies=50, readers=50, seconds=30)
# More of each slow kind than there are threads.
QUICK = Crowd(silent=100, headers=10, bodies=10, readers=10, seconds=2)


@dataclass
class _Strangers:
    """The connections; whoever is put out comes again at once."""

    port: int
    openings: dict[str, bytes]
    ends: bool = False
    open: list[tuple[str, socket.socket]] = field(default_factory=list)

    def come(self, kind: str) -> None:
        connection = socket.socket()
        if kind == "reader":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(2)
        try:
            connection.connect(("127.0.0.1", self.port))
            connection.sendall(self.openings[kind])
        except OSError:
            connection.close()
            return
        connection.setblocking(False)
        self.open.append((kind, connection))

    def drip(self) -> None:
        while not self.ends:
            for kind, connection in self.open[:]:
                if not self._lives(kind, connection):
                    self.open.remove((kind, connection))
                    connection.close()
                    self.come(kind)
            time.sleep(_DRIP_SECONDS)

    def _lives(self, kind: str, connection: socket.socket) -> bool:
        try:
            if kind in ("header", "body"):
                connection.send(b"a")
            return connection.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


@contextmanager
def crowd(port: int, who: Crowd, *, form: str, file: str) -> Iterator[None]:
    """Keep the crowd at the door: slow bodies for the address `form`, readers of the address `file`."""
    to = "HTTP/1.1\r\nHost: localhost"
    strangers = _Strangers(
        port,
        {
            "silent": b"",
            "header": f"GET /livez {to}\r\nX-Slow: ".encode(),
            "body": f"POST {form} {to}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            "Content-Length: 200000\r\n\r\nname=".encode(),
            "reader": f"GET {file} {to}\r\n\r\n".encode(),
        },
    )
    for kind, number in (
        ("silent", who.silent), ("header", who.headers), ("body", who.bodies), ("reader", who.readers)
    ):  # fmt: skip
        for _ in range(number):
            strangers.come(kind)
    dripping = threading.Thread(target=strangers.drip, daemon=True)
    dripping.start()
    try:
        yield
    finally:
        strangers.ends = True
        dripping.join()
        for _, connection in strangers.open:
            connection.close()


def strangers(stage: Stage, who: Crowd, type_id: int) -> Results:
    """`/livez` and purchases, while the crowd is at the door."""
    order_page = buy_one(stage, type_id)
    times: list[float] = []
    failed = bought = 0
    door = crowd(stage.machine.port, who, form="/events/buy", file=f"{order_page}/tickets.pdf")
    with door, stage.machine.measured() as cost:
        ends = time.perf_counter() + who.seconds
        # Once at least, where a machine is so busy that the time is over by now.
        while not times or time.perf_counter() < ends:
            took = _alive(stage)
            failed += took is None
            times.append(_PATIENCE_SECONDS if took is None else took)
            if len(times) % 20 == 1:
                with suppress(OSError):
                    buy_one(stage, type_id)
                    bought += 1
            time.sleep(0.05)
    return {
        "strangers.connections": who.silent + who.headers + who.bodies + who.readers,
        "strangers.p99": percentile(times, 0.99) * 1000,
        "strangers.failed": failed,
        "strangers.bought": bought,
        "strangers.cpu": cost.by_server.get("web", 0.0) / cost.wall * 1000,
    }


def _alive(stage: Stage) -> float | None:
    """Seconds of one `/livez` over a connection of its own; None if it is not answered."""
    began = time.perf_counter()
    browser = stage.browser(_PATIENCE_SECONDS)
    try:
        if browser.get("/livez").status != 200:
            return None
    except OSError:
        return None
    finally:
        browser.close()
    return time.perf_counter() - began
