"""The deployment files' own commands, in production mode on real PostgreSQL and Redis, sell a ticket."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import httpx
import psycopg
import pytest
import redis as redis_client
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from launcher.instance import procfile
from launcher.place import free_port
from launcher.processes import all_pids, end_session, session_members, started_at
from sqlalchemy.engine import make_url

ROOT = Path(__file__).resolve().parents[2]
HOST = "tickets.example.org"
# Seconds. Five processes start at once here, on a machine that does other things too.
PATIENCE = 120
pytestmark = [pytest.mark.deploy, pytest.mark.slow, pytest.mark.xdist_group("deploy")]

# Production has no demo, so the event comes from the organiser's own functions.
MAKE_EVENT = """
from datetime import timedelta
from app import create_app
from domain import clock
from domain.catalogue import events
from models import EventState
with create_app().app_context():
    start = clock.now() + timedelta(days=3)
    event = events.create_event(
        title="Open Evening", slug="open-evening", starts_at=start, ends_at=start + timedelta(hours=2),
        currency="EUR", state=EventState.PUBLISHED,
    )
    events.add_ticket_type(event, name="Entry", price_minor=0, capacity=5)
"""


@dataclass
class Mailbox:
    """An SMTP server on loopback that keeps what it gets."""

    port: int
    mails: list[Message] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        self.mails.append(message_from_bytes(content))
        return "250 kept"

    def to(self, address: str) -> list[Message]:
        return [mail for mail in self.mails if address in str(mail["To"])]


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox(free_port())
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    yield box
    controller.stop()


@pytest.fixture
def production(mailbox: Mailbox, redis_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a server: its own database, Redis, a mail server, and nothing of development."""
    # Another deployment's worker would take this one's jobs, and a test before may have left some.
    redis_client.Redis.from_url(redis_url).flushdb()
    server = make_url(os.environ["KASSA_TEST_DATABASE_URL"]).set(drivername="postgresql")
    name = f"kassa_deploy_{uuid.uuid4().hex[:12]}"
    admin = server.render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    url = server.set(database=name).render_as_string(hide_password=False)
    yield {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        # As Heroku writes it.
        "DATABASE_URL": url.replace("postgresql://", "postgres://"),
        "REDIS_URL": redis_url,
        "SECRET_KEY": "only-for-this-test-0123456789abcdef",
        "PORT": str(free_port()),
        "PUBLIC_URL": f"https://{HOST}",
        "ADMIN_EMAIL": "owner@example.org",
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mailbox.port),
        "MAIL_SENDER": "tickets@example.org",
        # Hides what a developer's .env may say.
        **dict.fromkeys(("STRIPE_SECRET_KEY", "STRIPE_PUBLISHABLE_KEY", "STRIPE_WEBHOOK_SECRET"), ""),
        **dict.fromkeys(("MAIL_API_KEY", "MAIL_USE_TLS", "MAIL_USE_SSL", "KASSA_ENV", "STRIPE_API_BASE"), ""),
        **dict.fromkeys(("SUMUP_API_KEY", "SUMUP_CLIENT_ID", "SUMUP_CLIENT_SECRET", "SUMUP_API_BASE"), ""),
        **dict.fromkeys(("MAIL_USERNAME", "MAIL_PASSWORD", "KASSA_BIND"), ""),
    }
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


class Server:
    """Shell commands running as one deployment, each in a session of its own."""

    def __init__(self, commands: dict[str, str], env: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.processes = []
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                self.processes.append(
                    subprocess.Popen(
                        ["/bin/sh", "-c", f"exec {command}"],
                        env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
                    )
                )  # fmt: skip

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))

    def wait(self, true: Callable[[], object], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            ended = [process.args for process in self.processes if process.poll() is not None]
            assert not ended, f"{ended} ended by itself\n{self.logs()}"
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s\n{self.logs()}"
            time.sleep(0.1)

    def stop(self) -> list[float]:
        """SIGTERM, as hosts do it; returns how long each took. Kills what is left, and fails for it."""
        took = []
        for process in self.processes:
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            took.append(time.monotonic() - began)
        left = [pid for process in self.processes for pid in session_members(process.pid)]
        for process in self.processes:
            end_session(process.pid, 1.0)
        assert left == [], "a process outlived its deployment"
        return took


class Visitor:
    """A browser in front of the proxy: cookies by hand, for httpx sends no Secure cookie over plain HTTP."""

    def __init__(self, port: str) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        self.cookies: dict[str, str] = {}

    def request(self, method: str, path: str, data: dict[str, str] | None = None) -> httpx.Response:
        headers = {"Host": HOST, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
        # What a browser says of a page that sends no Referer.
        headers |= {"Sec-Fetch-Site": "same-origin"} | ({"Origin": "null"} if method == "POST" else {})
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        path = path.removeprefix(f"https://{HOST}")
        response = self.client.request(method, path, data=data, headers=headers)
        for cookie in response.headers.get_list("set-cookie"):
            assert "Secure" in cookie and "HttpOnly" in cookie
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        self.client.cookies.clear()
        return response

    def answers(self, path: str) -> bool:
        try:
            return self.request("GET", path).status_code == 200
        except httpx.TransportError:
            return False


def run(command: str, env: dict[str, str]) -> str:
    done = subprocess.run(["/bin/sh", "-c", command], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def buy(visitor: Visitor) -> dict[str, object]:
    """The free ticket, as a browser buys it; returns the order's JSON."""
    page = visitor.request("GET", "/events/open-evening")
    assert page.status_code == 200
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    quantity = re.search(r'name="(quantity-\d+)"', page.text)
    assert quantity is not None
    form = {**hidden, "name": "Guest", "email": "guest@example.org", quantity[1]: "1"}
    answer = visitor.request("POST", "/events/open-evening", form)
    assert answer.status_code == 303, answer.text
    order = answer.headers["location"]
    assert re.search(r"/o/[^/]+/[^/]+$", order)
    assert visitor.request("GET", order).status_code == 200
    told = visitor.request("GET", f"{order}.json")
    assert told.status_code == 200, told.text
    found = told.json()
    assert isinstance(found, dict)
    return found


def sells(
    commands: dict[str, str], release: str, env: dict[str, str], mailbox: Mailbox, folder: Path
) -> None:
    """Release, start, sell, deliver, sweep, stop."""
    run(release, env)
    run(f"python -c '{MAKE_EVENT}'", env)
    server = Server(commands, env, folder)
    try:
        visitor = Visitor(env["PORT"])
        server.wait(lambda: visitor.answers("/livez"), PATIENCE, "/livez")
        order = buy(visitor)
        assert order["state"] == "completed"
        assert len(order["tickets"]) == 1  # type: ignore[arg-type]
        server.wait(
            lambda: any(m.is_multipart() for m in mailbox.to("guest@example.org")),
            PATIENCE,
            "the tickets' mail",
        )
        kinds = {part.get_content_type() for mail in mailbox.to("guest@example.org") for part in mail.walk()}
        assert "application/pdf" in kinds
        health = visitor.request("GET", "/healthz").json()
        assert health["status"] in ("ok", "starting"), health
        # The demo, the sandbox and the debug page are development's alone.
        assert visitor.request("GET", "/stripe/debug/").status_code == 404
    finally:
        took = server.stop()
    assert max(took) < 28, f"hosts kill after 30 s; it took {took}"


def test_heroku_s_processes_sell(production: dict[str, str], mailbox: Mailbox, tmp_path: Path) -> None:
    commands = procfile()
    release = commands.pop("release")
    sells(commands, release, production, mailbox, tmp_path)


def test_railway_s_one_service_sells(production: dict[str, str], mailbox: Mailbox, tmp_path: Path) -> None:
    deploy = json.loads((ROOT / "railway.json").read_text())["deploy"]
    (release,) = deploy["preDeployCommand"]
    sells({"service": deploy["startCommand"]}, release, production, mailbox, tmp_path)


def test_an_own_server_s_units_sell(production: dict[str, str], mailbox: Mailbox, tmp_path: Path) -> None:
    production["KASSA_BIND"] = "127.0.0.1"
    start = ROOT / "deploy/start"
    if not (ROOT / ".venv/bin/gunicorn").exists():
        pytest.fail("deploy/start needs .venv, which ./bin/test makes")
    commands = {name: f"{start} {name}" for name in procfile()}
    release = commands.pop("release")
    sells(commands, release, production, mailbox, tmp_path)


def test_railway_starts_anew_when_one_process_ends(production: dict[str, str], tmp_path: Path) -> None:
    """honcho ends the rest and itself, so that Railway sees a container that stopped."""
    deploy = json.loads((ROOT / "railway.json").read_text())["deploy"]
    run(procfile()["release"], production)
    server = Server({"service": deploy["startCommand"]}, production, tmp_path)
    try:
        server.wait(lambda: Visitor(production["PORT"]).answers("/livez"), PATIENCE, "/livez")
        clocks = [pid for pid in all_pids() if _runs(pid, "flask clock", production)]
        assert clocks
        for pid in clocks:
            os.kill(pid, signal.SIGKILL)
        assert server.processes[0].wait(20) != 0
    finally:
        end_session(server.processes[0].pid, 1.0)


def _runs(pid: int, command: str, env: dict[str, str]) -> bool:
    if not started_at(pid) or not shutil.which("ps"):
        return False
    told = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True
    ).stdout
    if command not in told.replace("/", " "):
        return False
    environ = Path(f"/proc/{pid}/environ")
    return not environ.exists() or env["DATABASE_URL"].encode() in environ.read_bytes()


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "REDIS_URL"])
def test_production_says_what_is_missing(production: dict[str, str], name: str) -> None:
    production[name] = ""
    refused = subprocess.run(
        ["/bin/sh", "-c", procfile()["release"]], env=production, cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert f"{name} is not set" in refused.stdout + refused.stderr


def test_production_refuses_the_sandbox_s_keys(production: dict[str, str]) -> None:
    production["STRIPE_SECRET_KEY"] = "sk_test_kassa_sandbox"
    refused = subprocess.run(
        ["/bin/sh", "-c", procfile()["release"]], env=production, cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "for development only" in refused.stdout + refused.stderr
