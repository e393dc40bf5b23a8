"""A backup is taken, sealed, put somewhere, and comes back as a shop that is closed and in another epoch."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient
from pyrage import x25519
from sqlalchemy import select, text

import config
from domain import clock, epochs
from domain.backups import lives, places, programs, restoring, taking
from domain.office import health
from domain.payments import settling
from extensions import db
from models import Backup, Role
from tests.support.bucket import bucket
from tests.support.people import log_in, mails, make_member
from tests.support.sandbox import ROOT, Sandbox
from tests.support.shop import make_event, make_user, place, report_on
from tests.support.threads import at_once

IDENTITY = x25519.Identity.generate()


@pytest.fixture
def shop(app: Flask) -> str:
    """A shop with a paid order, whose backups are sealed; the order's code."""
    config.use(replace(config.get(), backup_keys=(str(IDENTITY.to_public()),)))
    order = place(make_event())
    code = order.code
    settling.settle(order.payments[0].id, report_on(order.payments[0], "paid"), door="test")
    make_user()
    return code


def run(app: Flask, *arguments: str) -> Result:
    db.session.remove()
    return app.test_cli_runner().invoke(args=[*arguments])


def restored(environ: dict[str, str], backup: Path, *arguments: str, **more: str) -> str:
    """What `flask restore` says of a backup that comes in by a pipe, as an operator types it."""
    own = {"PATH": os.environ["PATH"], **environ, **more}
    command = [sys.executable, "-m", "flask", "--app", "app", "restore", "-", *arguments]
    with backup.open("rb") as pipe:
        done = subprocess.run(command, cwd=ROOT, env=own, stdin=pipe, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_a_backup_is_sealed_and_is_tried_in_a_database_beside(
    app: Flask, shop: str, environ: dict[str, str], tmp_path: Path
) -> None:
    said = run(app, "backup", "--to", f"{tmp_path}/")
    assert said.exit_code == 0 and "SHA-256" in said.output, said.output
    (file,) = tmp_path.iterdir()
    assert file.name.endswith(".dump.age") and file.stat().st_mode & 0o077 == 0
    assert shop.encode() not in file.read_bytes()
    key, other = tmp_path / "key.txt", tmp_path / "other.txt"
    key.write_text(f"# made by age-keygen\n{IDENTITY}\n")
    other.write_text(f"{x25519.Identity.generate()}\n")

    check, opened = ("restore", str(file), "--check"), ("--identity", str(key))
    assert "is encrypted" in run(app, *check).output
    assert "another one" in run(app, *check, "--identity", str(other)).output
    before = config.get()
    config.use(replace(before, secret_key="another-secret-entirely"))
    assert "had another SECRET_KEY" in run(app, *check, *opened).output
    config.use(before)
    # A restore overwrites nothing; how one goes on is told in test_restored_shop.py.
    assert "has tables already" in run(app, "restore", str(file), *opened).output
    # By a pipe, into a database of one's own, with other keys because it was said so.
    with restoring.scratch(programs.database()) as beside:
        into = ("--check", "--into", beside, "--other-keys")
        printed = restored(environ, file, *into, *opened, SECRET_KEY="another-secret-entirely")
    assert "It was made with another SECRET_KEY, and goes on without it." in printed
    assert "every invariant holds" in printed


def test_what_a_backup_needs_is_said(
    app: Flask, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Say where to" in run(app, "backup").output
    assert "cannot be written" in run(app, "backup", "--to", "/proc/none/x").output
    config.use(replace(config.get(), backup_keys=()))
    assert "set BACKUP_KEY" in run(app, "backup", "--to", str(tmp_path)).output
    plain = tmp_path / "plain.dump"
    assert run(app, "backup", "--to", str(plain), "--plain").exit_code == 0
    assert plain.read_bytes().startswith(b"PGDMP")
    plain.write_bytes(b"PGDMP, as far as this")
    assert "no backup of Kassa's" in run(app, "restore", str(plain), "--check").output
    # What the server is newer than, and nothing at all: the package is named.
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n")
    old.chmod(0o755)
    monkeypatch.setattr(programs, "_candidates", lambda name: [str(old)])
    refused = run(app, "backup", "--to", str(tmp_path), "--plain").output
    assert "only pg_dump 9 is here" in refused and "postgresql-client-" in refused
    monkeypatch.setattr(programs, "_candidates", lambda name: [])
    refused = run(app, "backup", "--to", str(tmp_path), "--plain").output
    assert f"postgresql-client-{programs.server_major()}" in refused


def test_the_clock_takes_one_a_day_and_two_days_without_are_told(
    app: Flask, client: FlaskClient, shop: str, tmp_path: Path
) -> None:
    assert taking.take_if_due() is None
    # A folder that is not there yet, and whose name could be a file's: each backup has its own file in it.
    folder = tmp_path / "backups.of.kassa"
    config.use(replace(config.get(), backup_to=str(folder), alert_email="boss@example.org"))
    first = taking.take_if_due()
    assert first is not None and first.error == "" and taking.take_if_due() is None
    assert [file.name[:6] for file in folder.iterdir()] == ["kassa-"]
    assert "last good backup" in health.report().checks["backup"].words
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    assert "The last good backup was taken" in client.get("/admin/").text
    first.began_at, first.ended_at = (clock.now() - timedelta(hours=50) for _ in range(2))
    db.session.commit()
    config.use(replace(config.get(), backup_to="/proc/none/"))
    for _ in range(2):
        assert taking.take_if_due() is None
    assert [bool(row.error) for row in db.session.scalars(select(Backup).order_by(Backup.id))] == [
        False,
        True,
    ]
    told = [mail.context["subject"] for mail in mails("alert")]
    assert told == ["[Kassa CRITICAL] No Backup for Two Days"], told
    assert health.report().checks["backup"].state == health.DEGRADED


def test_what_is_cut_short_or_has_no_room_is_said_and_two_at_once_are_two(
    app: Flask, shop: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    key = tmp_path / "key.txt"
    key.write_text(f"{IDENTITY}\n")
    taking.take(taking.STDOUT)
    printed = capfdbinary.readouterr().out
    whole = printed[printed.index(b"age-encryption.org/") :]
    sealed = tmp_path / "cut.dump.age"
    for length in (len(whole) - 5, 60):
        sealed.write_bytes(whole[:length])
        said = run(app, "restore", str(sealed), "--check", "--identity", str(key)).output
        assert "is damaged: it was cut short" in said, said
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        said = run(app, "backup", "--to", f"{tmp_path}/").output
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in said, said
    newest = db.session.scalars(select(Backup).order_by(Backup.id.desc())).first()
    assert newest is not None and newest.ended_at is not None and "File too large" in newest.error

    at_once(app, 2, lambda _: taking.take(f"{tmp_path}/both/"))
    both = list((tmp_path / "both").iterdir())
    assert len(both) == 2 and all(path.name.endswith(".dump.age") for path in both)
    assert b"".join(path.read_bytes()[:3] for path in both) == b"ageage"


def test_a_bucket_keeps_one_and_gives_it_back(app: Flask, shop: str, tmp_path: Path) -> None:
    with bucket("key-1") as store:
        door: dict[str, Any] = {
            "backup_s3_endpoint": store.url,
            "backup_s3_region": "eu-central-1",
            "backup_s3_secret": "secret",
        }
        config.use(replace(config.get(), **door))
        assert "needs BACKUP_S3_ENDPOINT" in run(app, "backup", "--to", "s3://kept/kassa").output
        config.use(replace(config.get(), backup_s3_key_id="key-2"))
        assert "AccessDenied" in run(app, "backup", "--to", "s3://kept/kassa").output
        config.use(replace(config.get(), backup_s3_key_id="key-1"))
        assert run(app, "backup", "--to", "s3://kept/kassa").exit_code == 0
        (path,) = store.objects
        assert path.startswith("/kept/kassa/kassa-") and path.endswith(".dump.age")
        key = tmp_path / "key.txt"
        key.write_text(str(IDENTITY))
        told = run(app, "restore", f"s3:/{path}", "--identity", str(key))
        assert "has tables already" in told.output
        # What is too large for one call goes up in parts.
        large, back = tmp_path / "large", tmp_path / "back"
        large.write_bytes(os.urandom(6 * 1024 * 1024))
        place = places.of("s3://kept/large.dump", "")
        place.put(large)
        place.fetch(back)
        assert back.read_bytes() == large.read_bytes() and not store.parts
        assert not places.of("s3://kept/none.dump", "").fetch_if_there(back)


def test_no_life_begins_twice_and_a_database_that_was_put_back_is_noticed(
    app: Flask, shop: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Whatever the database forgets, the next life has a number of its own."""
    config.use(replace(config.get(), backup_to=f"{tmp_path}/", alert_email="boss@example.org"))
    assert lives.notice() is None and epochs.mark() == ""
    # The host puts the database back by its own tools: what was sold since is gone, and Kassa is not told.
    order = place(make_event("later"))
    reference = order.payments[0].reference
    assert lives.notice() is None
    forget_newest()
    assert lives.notice() == 2 and epochs.is_closed() and lives.notice() is None
    (told,) = sandbox.mail(to="boss@example.org")
    assert told["subject"] == "[Kassa CRITICAL] Database Put Back - Shop Closed"
    # It is opened, sells, and is put back to before it knew of the second life.
    db.session.execute(text("UPDATE epochs SET opened_at = began_at"))
    db.session.commit()
    epochs.look_again()
    second = place(make_event("second")).payments[0].reference
    assert second.endswith("-1-E2") and second != reference
    db.session.execute(text("DELETE FROM epochs"))
    db.session.commit()
    epochs.look_again()
    assert lives.notice() == 3
    # Without Redis the list beside the backups knows it; typed by hand, too.
    redis_client.Redis.from_url(config.get().redis_url).flushdb()
    assert "epoch 4, and it is closed" in run(app, "restored", "--as-of", "2026-11-30 02:00", "--yes").output
    assert [line.split()[0] for line in (tmp_path / lives.NAME).read_text().splitlines()] == ["2", "3", "4"]
    latest = epochs.latest()
    assert latest is not None and latest.backup_at == datetime(2026, 11, 30, 2, tzinfo=UTC)
    assert restoring.close(restoring.Noted(clock.now(), {}), programs.database(), above=7) == 8
    epochs.look_again()


def forget_newest() -> None:
    """Take the newest order out of the database, as if it had never been there."""
    db.session.rollback()
    for table in ("order_words", "timeline", "outbox", "payments", "order_lines"):
        db.session.execute(text(f"DELETE FROM {table} WHERE order_id = (SELECT max(id) FROM orders)"))
    db.session.execute(text("DELETE FROM orders WHERE id = (SELECT max(id) FROM orders)"))
    db.session.commit()
