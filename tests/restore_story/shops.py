"""The shop of the story: its pages, its database, its providers' side and its operator's commands.

One is a whole Kassa with its own processes, for the long run. The other lives in the test's process, so that
a short run costs little; the story is the same.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
import requests
from flask import Flask

from domain import epochs
from domain.backups import programs
from domain.post import outbox
from domain.sweep import sweeping
from extensions import db
from tests.chaos.instance import Instance
from tests.support.sandbox import Sandbox

PASSWORD = "kassa-demo"
MEMBER, ADMIN, ORGANISER = "buyer@example.org", "admin@example.org", "organiser@example.org"
_PATIENCE = 90.0


class Gone(Exception):
    """The shop does not answer: it was lost while somebody was in it."""


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    location: str
    json: Any


# Method, path below the shop's address, and what goes along.
Ask = Callable[..., Answer]


@dataclass
class Browser:
    """Somebody before the shop's pages, without script. `token` is a program's."""

    ask: Ask
    token: str = ""

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, page: str = "", **typed: Any) -> Answer:
        """Send the form for `path` that stands on `page`, or at the same address, with what is typed."""
        html = self.get(page or path).text
        return self.ask("POST", path, data={**hidden(html, path), **typed})

    def log_in(self, email: str) -> Browser:
        """As somebody with the demo's password."""
        answer = self.post("/account/login", email=email, password=PASSWORD)
        assert answer.status in (302, 303), answer.text
        return self

    def program(self, email: str) -> Browser:
        """A program that acts for a member."""
        told = self.ask("POST", "/api/v1/auth/token", json={"email": email, "password": PASSWORD})
        assert told.status == 200, told.text
        return Browser(self.ask, told.json["access_token"])

    def call(self, method: str, path: str, body: Any = None, key: str = "") -> Answer:
        """Call the API."""
        headers = {"Authorization": f"Bearer {self.token}"}
        headers |= {"Idempotency-Key": key} if key else {}
        return self.ask(method, f"/api/v1{path}", json=body, headers=headers)


def hidden(html: str, path: str) -> dict[str, str]:
    """The hidden fields of the form for `path`, or of the page where it has but one."""
    parts = html.split("<form")[1:]
    forms = [part for part in parts if 'method="post"' in part.partition(">")[0]]
    form = next((part for part in forms if f'action="{path}"' in part), html)
    found = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form.partition("</form>")[0])
    return {name: unescape(value) for name, value in found}


class Shop(Protocol):
    """What the story does with a shop besides looking at its pages."""

    tournament: str

    def browser(self) -> Browser: ...

    def member(self, email: str) -> Browser:
        """Somebody's browser, in which they have logged in once."""
        ...

    def program(self, email: str) -> Browser:
        """A program that acts for them."""
        ...

    def forget(self) -> None:
        """Everybody logs in anew."""
        ...

    def control(self, path: str, body: dict[str, Any] | None = None) -> Any: ...

    def flask(self, *arguments: str) -> str:
        """An operator's command; what it said. AssertionError where it failed."""
        ...

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What the shop's database has."""
        ...

    def lose(self) -> None:
        """Nothing runs any more, and the database is empty."""
        ...

    def open_again(self) -> None:
        """Start what was stopped, and wait until one sweep has gone through."""
        ...

    def hold_mails(self, down: bool) -> None:
        """Keep the worker down, as a fault would, so that mails are owed; or let it come back."""
        ...

    def send_mails(self) -> None:
        """Wait until all mail that may leave has left."""
        ...

    def wait_for_ring(self) -> bool:
        """Whether providers ring here: then what was paid just now is heard of, without a sweep."""
        ...


class People(ABC):
    """Who has logged in, until the shop is lost: then their logins may be, too."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Browser] = {}

    @abstractmethod
    def browser(self) -> Browser:
        """Somebody who has not logged in."""

    def member(self, email: str) -> Browser:
        if ("member", email) not in self._known:
            self._known["member", email] = self.browser().log_in(email)
        return self._known["member", email]

    def program(self, email: str) -> Browser:
        if ("program", email) not in self._known:
            self._known["program", email] = self.browser().program(email)
        return self._known["program", email]

    def forget(self) -> None:
        self._known.clear()


@dataclass
class Running(People):
    """A whole Kassa: web, worker and clock are processes, and commands are typed at its door."""

    instance: Instance
    tournament: str = "harbour-open"
    _lost: bool = field(default=False)

    def __post_init__(self) -> None:
        super().__init__()

    def browser(self) -> Browser:
        session = requests.Session()
        session.trust_env = False

        def ask(method: str, path: str, **more: Any) -> Answer:
            url = path if path.startswith("http") else self.instance.web + path
            ends = time.monotonic() + _PATIENCE
            got = None
            while got is None:
                try:
                    got = session.request(method, url, timeout=30, allow_redirects=False, **more)
                except requests.RequestException as error:
                    if self._lost or time.monotonic() > ends:
                        raise Gone from error
                    time.sleep(0.5)
            json = got.json() if "json" in got.headers.get("Content-Type", "") else None
            return Answer(got.status_code, got.text, got.headers.get("Location", ""), json)

        return Browser(ask)

    def control(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.instance.control(path, body)

    def flask(self, *arguments: str) -> str:
        done = self.instance.flask(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def rows(self, query: str, *values: Any) -> list[Any]:
        return _rows(self.instance.env()["DATABASE_URL"], query, values)

    def lose(self) -> None:
        self._lost = True
        self.forget()
        for name in ("clock", "worker", "web"):
            self.instance.hold(name, down=True)
            self.instance.kill(name)
        url = urlsplit(self.instance.env()["DATABASE_URL"])
        name, beside = url.path.lstrip("/"), urlunsplit(url._replace(path="/postgres"))
        with psycopg.connect(_plain(beside), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        redis.Redis.from_url(self.instance.env()["REDIS_URL"]).flushall()

    def open_again(self) -> None:
        for name in ("web", "worker", "clock"):
            self.instance.hold(name, down=False)
        self._lost = False
        # The clock has one done as it starts.
        query = (
            "SELECT count(*) FROM sweep_runs WHERE finished_at IS NOT NULL "
            "AND started_at > (SELECT max(began_at) FROM epochs)"
        )
        self._wait(lambda: self.rows(query)[0][0] > 0, "a sweep has gone through")

    def hold_mails(self, down: bool) -> None:
        self.instance.hold("worker", down=down)
        if down:
            self.instance.kill("worker")

    def send_mails(self) -> None:
        due = "SELECT count(*) FROM outbox WHERE state = 'due' AND held_with IS NULL AND kind <> 'alert'"
        self._wait(lambda: self.rows(due)[0][0] == 0, "all mail has left")

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + 400
        while not holds():
            assert time.monotonic() < ends, f"waited in vain until {what}"
            time.sleep(0.5)

    def wait_for_ring(self) -> bool:
        return True


@dataclass
class Here(People):
    """The application of the test, with nothing that runs beside it."""

    app: Flask
    sandbox: Sandbox
    tournament: str
    _lost: bool = field(default=False)

    def __post_init__(self) -> None:
        super().__init__()

    def browser(self) -> Browser:
        client = self.app.test_client()

        def ask(method: str, path: str, **more: Any) -> Answer:
            if self._lost:
                raise Gone
            got = client.open(path.removeprefix("http://localhost"), method=method, **more)
            return Answer(
                got.status_code, got.text, got.headers.get("Location", ""), got.get_json(silent=True)
            )

        return Browser(ask)

    def control(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.sandbox.post(path, body) if body is not None else _get(self.sandbox, path)

    def flask(self, *arguments: str) -> str:
        db.session.remove()
        done = self.app.test_cli_runner().invoke(args=[*arguments])
        db.session.remove()
        epochs.look_again()
        assert done.exit_code == 0, done.output
        return done.output

    def rows(self, query: str, *values: Any) -> list[Any]:
        return _rows(programs.database(), query, values)

    def lose(self) -> None:
        self._lost = True
        self.forget()
        db.session.remove()
        db.engine.dispose()
        with psycopg.connect(programs.database(), autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")

    def open_again(self) -> None:
        self._lost = False
        sweeping.run("clock")
        db.session.remove()

    def hold_mails(self, down: bool) -> None:
        """Nothing runs beside the test: none has left."""

    def send_mails(self) -> None:
        outbox.deliver_due(limit=1)
        # The others have left, too, without a file that is made for each.
        self.rows(
            "UPDATE outbox SET state = 'sent', next_attempt_at = NULL, sent_at = created_at "
            "WHERE state = 'due' AND held_with IS NULL RETURNING id"
        )
        db.session.remove()

    def wait_for_ring(self) -> bool:
        return False


def _get(sandbox: Sandbox, path: str) -> Any:
    name, _, query = path.partition("?")
    return sandbox.get(name, **dict(part.split("=") for part in query.split("&") if part))


def _rows(url: str, query: str, values: Mapping[str, Any] | tuple[Any, ...]) -> list[Any]:
    with psycopg.connect(_plain(url)) as connection:
        return connection.execute(query.encode(), values).fetchall()


def _plain(url: str) -> str:
    return programs.driver_free(url)


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Running]:
    """A whole Kassa in a folder, for as long as it is needed."""
    instance = Instance(folder / "home", **settings)
    try:
        yield Running(instance)
    finally:
        instance.stop()
