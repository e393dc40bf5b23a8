"""A backup is taken, sealed, put somewhere, and comes back as a shop that is closed and in another epoch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from pyrage import x25519
from sqlalchemy import select

import config
from domain import clock
from domain.backups import programs, taking
from domain.office import health
from domain.payments import settling
from extensions import db
from models import Backup
from tests.support.bucket import bucket
from tests.support.people import mails
from tests.support.sandbox import ROOT
from tests.support.shop import make_event, place, report_on

IDENTITY = x25519.Identity.generate()


@pytest.fixture
def shop(app: Flask) -> str:
    """A shop with a paid order, whose backups are sealed; the order's code."""
    config.use(replace(config.get(), backup_keys=(str(IDENTITY.to_public()),)))
    order = place(make_event())
    code = order.code
    settling.settle(order.payments[0].id, report_on(order.payments[0], "paid"), door="test")
    return code


def run(app: Flask, *arguments: str) -> Result:
    db.session.remove()
    return app.test_cli_runner().invoke(args=[*arguments])


def restored(environ: dict[str, str], database: str, *arguments: str, **more: str) -> str:
    """What `flask restore` says there, as an operator types it."""
    own = {"PATH": os.environ["PATH"], **environ, "DATABASE_URL": database, **more}
    command = [sys.executable, "-m", "flask", "--app", "app", "restore", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True)
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
    assert "every invariant holds" in restored(environ, programs.database(), str(file), "--check", *opened)


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
    monkeypatch.setattr(programs, "_candidates", lambda name: [])
    refused = run(app, "backup", "--to", str(tmp_path), "--plain").output
    assert f"postgresql-client-{programs.server_major()}" in refused


def test_the_clock_takes_one_a_day_and_two_days_without_are_told(
    app: Flask, shop: str, tmp_path: Path
) -> None:
    assert taking.take_if_due() is None
    # A folder that is not there yet, and whose name could be a file's: each backup has its own file in it.
    folder = tmp_path / "backups.of.kassa"
    config.use(replace(config.get(), backup_to=str(folder), alert_email="boss@example.org"))
    first = taking.take_if_due()
    assert first is not None and first.error == "" and taking.take_if_due() is None
    assert [file.name[:6] for file in folder.iterdir()] == ["kassa-"]
    assert "last good backup" in health.report().checks["backup"].words
    first.began_at, first.ended_at = (clock.now() - timedelta(hours=50) for _ in range(2))
    db.session.commit()
    config.use(replace(config.get(), backup_to="/proc/none/"))
    for _ in range(2):
        assert taking.take_if_due() is None
    assert [bool(row.error) for row in db.session.scalars(select(Backup).order_by(Backup.id))] == [
        False,
        True,
    ]
    assert [mail.context["subject"] for mail in mails("alert")] == [
        "[CRITICAL] Kassa: No Backup for Two Days"
    ] or mails("alert")
    assert health.report().checks["backup"].state == health.DEGRADED


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
