"""A box office that is open for the whole folder: gunicorn over the test database, and the demo's events.

Seeding takes longer than a visit, so the tests share one box office and each brings people of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_client
import requests
from flask import Flask
from playwright.sync_api import Browser, sync_playwright

import config
from domain import demo
from extensions import db
from tests.browser.camera import Camera
from tests.browser.house import House
from tests.browser.visitor import PHONE, Visitor
from tests.support import tables
from tests.support.sandbox import ROOT, Sandbox, free_port

START_SECONDS = 120
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
def house(migrated: Flask, environ: dict[str, str], sandbox: Sandbox, home: Path) -> Iterator[House]:
    """The web process as a host runs it, in front of the demo's events."""
    port = free_port()
    own = environ | {"PORT": str(port), "PUBLIC_URL": f"http://localhost:{port}", "SITE_NAME": "Kassa"}
    own["LISTING_FEE"] = "12.50"
    config.use(config.load(own))
    sandbox.reset()
    redis_client.Redis.from_url(environ["REDIS_URL"]).flushdb()
    with migrated.app_context():
        tables.empty()
        demo.seed()
        db.session.remove()
    server = _serve(own, home / "web.log")
    try:
        yield House(own["PUBLIC_URL"], sandbox, migrated)
    finally:
        server.terminate()
        server.wait(timeout=10)
        config.use(config.load(environ))


def _serve(own: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """The Procfile's web command with one process, once it answers."""
    environ = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG", "TZ", "PYTHONPYCACHEPREFIX")
        if name in os.environ
    }
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{own['PORT']}"]
    command += ["--threads", "4", "--no-control-socket", "app:create_app()"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=ROOT, env=environ | own, stdout=output, stderr=output)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            requests.get(f"{own['PUBLIC_URL']}/livez", timeout=5).raise_for_status()
            return server
        except requests.RequestException:
            time.sleep(0.1)
    server.kill()
    raise RuntimeError(f"The web process did not start: {log.read_text()[-2000:]}")


@pytest.fixture
def webhooks(house: House) -> Iterator[None]:
    """The sandbox rings at the box office while the test runs. Without it, nobody rings."""
    house.sandbox.post("settings", {"webhook_url": f"{house.url}/stripe/webhook/"})
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
def chromium(camera: Camera) -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or next(
        (found for found in map(shutil.which, _NAMES) if found), None
    )
    if program is None:
        pytest.fail("There is no Chromium. ./bin/test installs it; or set CHROMIUM to the program's path.")
    flags = [*_FLAGS, f"--use-file-for-fake-video-capture={camera.path}"]
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

    def open_one(*, width: int = PHONE, javascript: bool = True) -> Visitor:
        visitors.append(Visitor(chromium, house, width=width, javascript=javascript))
        return visitors[-1]

    yield open_one
    problems = [problem for visitor in visitors for problem in visitor.close()]
    assert not problems, "\n".join(problems)
