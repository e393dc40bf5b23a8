"""Fixtures over the real thing: a PostgreSQL database for each test process, emptied between tests.

`bin/test` gives the servers in KASSA_TEST_DATABASE_URL (where databases may be created) and
KASSA_TEST_REDIS_URL. The sandbox is started once for each test process.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis as redis_client
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from sqlalchemy.engine import make_url
from werkzeug.test import TestResponse

import config
from app import create_app
from domain.connections import credentials
from domain.security import passwords
from extensions import db
from tests.support import audited, tables
from tests.support.sandbox import Sandbox, start_sandbox
from tests.support.tills import TILLS, Till

# What takes minutes begins first: at the end, one process would be left alone with it.
_LONG = ("tests/chaos/", "tests/simulation/test_simulation.py", "tests/simulation/", "tests/bench/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests first, all others in their files' order."""
    items.sort(key=lambda item: next((n for n, path in enumerate(_LONG) if item.nodeid.startswith(path)), 9))


class Browser(FlaskClient):
    """A browser whose every request has an application context of its own, as in production.

    The test's own context would be shared otherwise, and with it whoever was logged in by the request before.
    """

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        with self.application.app_context():
            answer = super().open(*args, **kwargs)
        # What the test has loaded may have been changed by the request.
        db.session.expire_all()
        return answer


@pytest.fixture(scope="session", autouse=True)
def quick_hashes() -> Iterator[PasswordHasher]:
    """Passwords are hashed in an instant within the test process; gives the hasher that Kassa has.

    Thousands of logins would take minutes of the processor. What is really used is held by
    tests/domain/security/test_password_hashes.py, and is what the processes that tests start have.
    """
    kept = passwords._hasher
    passwords._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    passwords._nobodys.cache_clear()
    yield kept
    passwords._hasher = kept


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """`gw0`, `gw1`, ... under xdist, else `main`."""
    return str(getattr(request.config, "workerinput", {}).get("workerid", "main"))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This test process's KASSA_HOME."""
    return tmp_path_factory.mktemp("kassa")


@pytest.fixture(scope="session")
def database_url(worker_id: str) -> Iterator[str]:
    """A database of this test process's own."""
    server = os.environ.get("KASSA_TEST_DATABASE_URL")
    if not server:
        pytest.exit("Run the tests with ./bin/test: it starts PostgreSQL and Redis for them.", returncode=2)
    url = make_url(server).set(drivername="postgresql")
    admin = url.render_as_string(hide_password=False)
    name = f"kassa_test_{worker_id}_{os.getpid()}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield url.set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def redis_url(worker_id: str) -> str:
    """A Redis database of this test process's own."""
    base = os.environ["KASSA_TEST_REDIS_URL"]
    number = int(worker_id.removeprefix("gw")) + 1 if worker_id.startswith("gw") else 0
    return (
        f"{base}{'&' if '?' in base else '?'}db={number}" if base.startswith("unix:") else f"{base}/{number}"
    )


@pytest.fixture(scope="session")
def sandbox(home: Path) -> Iterator[Sandbox]:
    """The providers' local imitation and the mail catcher, as a process of its own."""
    running = start_sandbox(home)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def environ(home: Path, database_url: str, redis_url: str, sandbox: Sandbox) -> dict[str, str]:
    """The variables of a development Kassa that talks to the sandbox."""
    return {
        "KASSA_ENV": "development",
        "KASSA_HOME": str(home),
        "SECRET_KEY": "a-secret-for-tests-only",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PUBLIC_URL": "http://localhost",
        "STRIPE_SECRET_KEY": "sk_test_kassa_sandbox",
        "STRIPE_PUBLISHABLE_KEY": "pk_test_kassa_sandbox",
        "STRIPE_WEBHOOK_SECRET": "whsec_kassa_sandbox",
        "STRIPE_API_BASE": f"{sandbox.base_url}/stripe",
        "STRIPE_RATE_PER_SECOND": "1000",
        "SUMUP_API_KEY": "sup_sk_kassa_sandbox",
        "SUMUP_MERCHANT_CODE": "MKASSA01",
        "SUMUP_CLIENT_ID": "cc_classic_kassa_sandbox",
        "SUMUP_CLIENT_SECRET": "cc_sk_classic_kassa_sandbox",
        "SUMUP_API_BASE": f"{sandbox.base_url}/sumup",
        "SUMUP_RATE_PER_SECOND": "1000",
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(sandbox.smtp_port),
        # Off in a new Kassa; tests of what it means are in tests/domain/catalogue/test_house_account.py.
        "HOUSE_ACCOUNT_FOR_ORGANISERS": "true",
        "SUPPORT_EMAIL": "help@example.org",
        "PAYMENT_ALERT_EMAIL": "alerts@example.org",
        "KASSA_LIMITS": "off",
    }


@pytest.fixture(scope="session")
def migrated(environ: dict[str, str]) -> Flask:
    """An application over a database that was made by the migrations, as production's is."""
    application = create_app(config.load(environ))
    application.testing = True
    application.test_client_class = Browser
    with application.app_context():
        upgrade()
        db.engine.dispose()
    # All that lives as long as this process need not be searched for garbage again and again.
    gc.collect()
    gc.freeze()
    # Nor the rest so often: a fifth of a test's time would go into it.
    gc.set_threshold(50_000, 20, 20)
    return application


@pytest.fixture(scope="session")
def redis(redis_url: str) -> redis_client.Redis:
    """This test process's Redis; to connect anew takes longer than to empty it."""
    return redis_client.Redis.from_url(redis_url)


@pytest.fixture
def app(
    migrated: Flask, environ: dict[str, str], sandbox: Sandbox, redis: redis_client.Redis
) -> Iterator[Flask]:
    """The application over empty tables, an empty Redis and a sandbox without faults or clock offset."""
    config.use(config.load(environ))
    sandbox.reset()
    redis.flushdb()
    with migrated.app_context():
        # Another test may have made an application of its own since.
        credentials.use(db.engine)
        tables.empty()
        audited.silent.clear()
        yield migrated
        db.session.remove()
        assert not audited.silent, audited.silent


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser without JavaScript. CSRF is checked as in production; `tests.support.web` reads the token."""
    return app.test_client()


@pytest.fixture(params=TILLS, ids=lambda till: till.name)
def till(request: pytest.FixtureRequest) -> Till:
    """Each provider that the sandbox imitates, in turn."""
    found: Till = request.param
    return found
