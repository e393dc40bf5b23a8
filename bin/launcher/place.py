"""Where Kassa lives on this machine: the clone, KASSA_HOME, the settings kept in it, free ports."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from launcher.say import Stop

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"


class Home:
    """One instance's folder: data, logs, pids, and the secrets and ports that it keeps between starts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path / "run"
        self.log = path / "log"
        self.env_file = path / "env"
        try:
            # 0711: PostgreSQL, which refuses to run as root, must be able to pass through as another user.
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.run.mkdir(mode=0o755, exist_ok=True)
            self.log.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Stop(
                f"Cannot write to {path}: {error.strerror}. Set KASSA_HOME to a folder of your own."
            ) from error

    def kept(self, name: str) -> str:
        """A random secret, made at first use and the same ever after."""
        values = self._values()
        if name not in values:
            values[name] = secrets.token_urlsafe(32)
            self._write(values)
        return str(values[name])

    def port(self, name: str) -> int:
        """A free port, the same as last time unless somebody took it meanwhile."""
        values = self._values()
        port = int(values.get(name, 0))
        if not port or not port_is_free(port):
            port = free_port()
            values[name] = str(port)
            self._write(values)
        return port

    @contextmanager
    def lock(self, *, wait: bool) -> Iterator[None]:
        """Hold this home; raises Stop if another launcher has it and `wait` is false."""
        with lock_file(self.run / "lock", wait=wait) as got:
            if not got:
                pid = read_pid(self.run / "run.pid")
                raise Stop(
                    f"Kassa already runs in {self.path}. Stop it with Ctrl-C there, or: kill {pid}\n"
                    "A second one needs its own KASSA_HOME and PORT: KASSA_HOME=.kassa2 PORT=8100 ./bin/run"
                )
            yield

    def is_running(self) -> bool:
        """Whether a launcher holds this home right now."""
        with lock_file(self.run / "lock", wait=False) as got:
            return not got

    def _values(self) -> dict[str, str]:
        path = self.path / "kept.json"
        if not path.exists():
            return {}
        try:
            return {str(k): str(v) for k, v in json.loads(path.read_text()).items()}
        except (ValueError, AttributeError) as error:
            raise Stop(
                f"{path} is damaged. Remove {self.path} to start anew (its data goes with it)."
            ) from error

    def _write(self, values: Mapping[str, str]) -> None:
        write_private(self.path / "kept.json", json.dumps(values, indent=2) + "\n")


@contextmanager
def lock_file(path: Path, *, wait: bool) -> Iterator[bool]:
    """An advisory lock that ends with the process; yields whether it was got."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Write `text` so that only its owner can read it, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def read_pid(path: Path) -> int:
    """The process id in a pid file, or 0."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def home_path(environ: Mapping[str, str]) -> Path:
    """KASSA_HOME made absolute; `.kassa` in the clone by default."""
    given = environ.get("KASSA_HOME", "").strip()
    return Path(given).expanduser().absolute() if given else ROOT / ".kassa"


def environment() -> dict[str, str]:
    """The process's environment, with `.env` behind it: a variable that is set and not empty wins."""
    # An empty line of .env is a setting not made, and gunicorn for one would stumble over an empty number.
    merged = {name: value for name, value in dotenv(ROOT / ".env").items() if value}
    merged.update({name: value for name, value in os.environ.items() if value or name not in merged})
    return merged


def dotenv(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a .env file, unquoted; a missing file is empty."""
    if not path.is_file():
        return {}
    found = {}
    for raw in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = raw.strip().removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or name.startswith("#"):
            continue
        if value[:1] in ("'", '"'):
            value = value[1:].partition(value[0])[0]
        else:
            value = value.partition(" #")[0].strip()
        found[name] = value
    return found


def number(environ: Mapping[str, str], name: str, default: int) -> int:
    """A port number from the environment; raises Stop if it is none."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 65536:
        raise Stop(f"{name} must be a port number between 1 and 65535; it is {text!r}.")
    return int(text)


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As the servers do it: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
