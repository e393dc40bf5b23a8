"""A box office that is open for the whole folder: in production, behind TLS, with the demo's events.

It is what a host runs: the Procfile's web command with production's settings, and a front that speaks https
for it. Only the demo is seeded by settings of a development, for production has none. Seeding takes longer
than a visit, so the tests share one box office and each brings people of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis as redis_client
import requests
from flask import Flask
from launcher.instance import procfile
from playwright.sync_api import Browser, sync_playwright

import config
from app import create_app
from domain.connections import credentials
from domain.office import demo
from domain.people import accounts
from domain.security import passwords
from extensions import db
from tests.browser.camera import Camera
from tests.browser.house import House
from tests.browser.visitor import PHONE, Visitor
from tests.support import production, tables, tls
from tests.support.people import PASSWORD
from tests.support.sandbox import ROOT, Sandbox, free_port, start_sandbox

START_SECONDS = 120
HOST, OWNER = "tickets.example.org", "owner@example.org"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


@pytest.fixture(scope="package")
def bank(home: Path) -> Iterator[Sandbox]:
    """The providers, who know this box office by an operator's keys."""
    running = start_sandbox(home / "bank", module="tests.support.production")
    yield running
    running.stop()


@pytest.fixture(scope="package")
def shown(home: Path) -> tls.Certificate:
    """What the front shows to browsers."""
    return tls.certificate(HOST, home / "tls")


@pytest.fixture(scope="package")
def house(
    migrated: Flask, environ: dict[str, str], bank: Sandbox, home: Path, shown: tls.Certificate
) -> Iterator[House]:
    """The web process as a host runs it, in front of the demo's events."""
    port, url = free_port(), f"https://{HOST}"
    own = environ | {"PORT": str(port), "MAIL_PORT": str(bank.smtp_port), "ADMIN_EMAIL": OWNER}
    own |= {"SITE_NAME": "Kassa", "LISTING_FEE": "12.50"}
    settings = production.settings(own, url, bank.base_url)
    redis_client.Redis.from_url(environ["REDIS_URL"]).flushdb()
    app = create_app(settings)
    with app.app_context():
        tables.empty()
    factory = f"tests.support.production:create_app('{bank.base_url}')"
    log = home / "web.log"
    with _serving(production.variables(own, url), log, factory), tls.front(shown, port) as front:
        with app.app_context():
            config.use(replace(settings, development=True))
            demo.seed()
            # In production everybody's password is too weak for an admin.
            boss = accounts.find("admin@example.org")
            assert boss is not None
            boss.password_hash = passwords.hashed(PASSWORD)
            db.session.commit()
            config.use(settings)
            db.session.remove()
        yield House(url, bank, app, environ=own, front=front, first_admin=_first_admin(log))
    with app.app_context():
        db.engine.dispose()
    with migrated.app_context():
        credentials.use(db.engine)
    config.use(config.load(environ))


def _first_admin(log: Path) -> str:
    """The link that the process prints at its first request, before there is an admin."""
    found = re.search(r"FIRST ADMIN: .* (https://\S+)", log.read_text())
    assert found is not None, log.read_text()[-2000:]
    return found[1]


@pytest.fixture(scope="package")
def workshop(house: House, home: Path) -> Iterator[str]:
    """The address of the same box office as bin/run starts it: in development, without TLS."""
    port = free_port()
    own = house.environ | production.KEYS | {"PORT": str(port), "PUBLIC_URL": f"http://localhost:{port}"}
    providers = ("STRIPE", "SUMUP", "KASPI")
    own |= {f"{name}_API_BASE": f"{house.sandbox.base_url}/{name.lower()}" for name in providers}
    with _serving(own, home / "workshop.log", "app:create_app()"):
        yield own["PUBLIC_URL"]


@contextmanager
def _serving(own: dict[str, str], log: Path, factory: str) -> Iterator[None]:
    """The Procfile's web command with one process, while it answers."""
    environ = {name: os.environ[name] for name in ("HOME", "LANG", "TZ") if name in os.environ}
    environ["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environ |= {"WEB_CONCURRENCY": "1", "KASSA_BIND": "127.0.0.1"}
    command = procfile()["web"].replace("'app:create_app()'", f'"{factory}"')
    assert factory in command
    with log.open("wb") as output:
        server = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            cwd=ROOT, env=environ | own, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        _wait(server, int(own["PORT"]), log)
        yield
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            requests.get(f"http://127.0.0.1:{port}/livez", timeout=5).raise_for_status()
            return
        except requests.RequestException:
            time.sleep(0.1)
    raise RuntimeError(f"The web process did not start: {log.read_text()[-2000:]}")


@pytest.fixture
def webhooks(house: House) -> Iterator[None]:
    """The sandbox rings at the box office while the test runs. Without it, nobody rings."""
    # A host takes rings under any of its names.
    house.sandbox.post(
        "settings", {"webhook_url": f"http://127.0.0.1:{house.environ['PORT']}/stripe/webhook/"}
    )
    yield
    house.sandbox.post("settings", {"webhook_url": None})


@pytest.fixture(autouse=True)
def _session(house: House) -> Iterator[None]:
    """An application context for what the test itself asks of the domain."""
    with house.app.app_context():
        yield
        db.session.remove()


@pytest.fixture(scope="package")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Camera:
    """What stands before the camera of every browser here."""
    return Camera(tmp_path_factory.mktemp("camera") / "view.y4m")


@pytest.fixture(scope="package")
def chromium(camera: Camera, house: House, shown: tls.Certificate) -> Iterator[Browser]:
    """A browser that finds the box office under its name, and trusts the authority of its certificate."""
    program = os.environ.get("CHROMIUM") or next(
        (found for found in map(shutil.which, _NAMES) if found), None
    )
    if program is None:
        pytest.fail("There is no Chromium. ./bin/test installs it; or set CHROMIUM to the program's path.")
    ports = {80: house.front.http, 443: house.front.https}
    found = ",".join(f"MAP {HOST}:{asked} 127.0.0.1:{port}" for asked, port in ports.items())
    flags = [*_FLAGS, f"--use-file-for-fake-video-capture={camera.path}", f"--host-resolver-rules={found}"]
    flags.append(f"--ignore-certificate-errors-spki-list={shown.pin}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser, house: House) -> Iterator[Callable[..., Visitor]]:
    """Opens browsers: `visit()` is a phone of 390 px, `visit(javascript=False)` one without scripts.

    At the end each must have seen no error of a script, no violation of the policy and no failed request.
    """
    visitors: list[Visitor] = []

    def open_one(*, width: int = PHONE, javascript: bool = True, base_url: str = "") -> Visitor:
        one = Visitor(chromium, house, width=width, javascript=javascript, base_url=base_url)
        visitors.append(one)
        return one

    yield open_one
    problems = [problem for visitor in visitors for problem in visitor.close()]
    assert not problems, "\n".join(problems)
