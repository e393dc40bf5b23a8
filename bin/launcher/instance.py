"""One instance of Kassa on this machine: its settings resolved, its services and programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from launcher import place
from launcher.install import find_browser, venv_command
from launcher.place import ROOT, VENV, Home
from launcher.processes import Keeper, Program
from launcher.say import Step, Stop
from launcher.servers import Postgres, Redis

SANDBOX_KEYS = {
    "STRIPE_SECRET_KEY": "sk_test_kassa_sandbox",
    "STRIPE_PUBLISHABLE_KEY": "pk_test_kassa_sandbox",
    "STRIPE_WEBHOOK_SECRET": "whsec_kassa_sandbox",
}
SANDBOX_SUMUP_KEYS = {
    "SUMUP_API_KEY": "sup_sk_kassa_sandbox",
    "SUMUP_MERCHANT_CODE": "MKASSA01",
    "SUMUP_CLIENT_ID": "cc_classic_kassa_sandbox",
    "SUMUP_CLIENT_SECRET": "cc_sk_classic_kassa_sandbox",
}
SANDBOX_KASPI_KEYS = {
    "KASPI_MODE": "r1",
    "KASPI_API_KEY": "kaspi_kassa_sandbox",
    "KASPI_BIN": "990140001234",
    "KASPI_TRADE_POINT": "1001",
    "KASPI_DEVICE_ID": "kassa",
    "KASPI_DEVICE_TOKEN": "device_kassa_sandbox",
}
DEFAULTS = {
    "PAYMENT_ALERT_EMAIL": "alerts@example.org",
    "SUPPORT_EMAIL": "help@example.org",
    "ADMIN_EMAIL": "admin@example.org",
}


class Instance:
    """Settings and services of one KASSA_HOME."""

    def __init__(self, home: Home, environ: Mapping[str, str]) -> None:
        self.home = home
        self.given = dict(environ)
        self.keeper = Keeper(home)
        self.port = place.number(environ, "PORT", 8000)
        self.sandbox_port = place.number(environ, "SANDBOX_PORT", self.port + 1)
        self.host = environ.get("KASSA_BIND", "").strip() or "127.0.0.1"
        self.env: dict[str, str] = {}

    @property
    def sandbox(self) -> str:
        return f"http://127.0.0.1:{self.sandbox_port}"

    def check_ports(self) -> None:
        """Raise Stop naming the port that somebody else has."""
        if self.port == self.sandbox_port:
            raise Stop(f"PORT and SANDBOX_PORT are both {self.port}; give them two different numbers.")
        for name, port, host in (
            ("PORT", self.port, self.host),
            ("SANDBOX_PORT", self.sandbox_port, "127.0.0.1"),
        ):
            if not place.port_is_free(port, host):
                raise Stop(
                    f"Port {port} is taken by another program. Choose another one: "
                    f"{name}={port + 100} ./bin/run"
                )

    def start_services(self) -> None:
        """Start PostgreSQL and Redis where no URL names them, and resolve the settings."""
        urls = {}
        if not self.given.get("DATABASE_URL"):
            step = Step("PostgreSQL")
            postgres = Postgres(self.home)
            self.keeper.start(postgres.program())
            postgres.ensure_database("kassa")
            urls["DATABASE_URL"] = postgres.url("kassa")
            step.done(f"port {postgres.port}")
        if not self.given.get("REDIS_URL"):
            step = Step("Redis")
            redis = Redis(self.home)
            self.keeper.start(redis.program())
            urls["REDIS_URL"] = redis.url()
            step.done(f"port {redis.port}")
        self.env = self.resolve(urls)

    def resolve(self, urls: Mapping[str, str]) -> dict[str, str]:
        """The environment of everything this instance runs. What the person set is never overwritten."""
        env = {**self.given, **urls, "KASSA_ENV": "development", "KASSA_HOME": str(self.home.path)}
        env["PORT"], env["SANDBOX_PORT"] = str(self.port), str(self.sandbox_port)
        env["KASSA_BIND"] = self.host
        env["PATH"] = f"{VENV / 'bin'}:{env.get('PATH', '/usr/bin:/bin')}"
        env["PYTHONUNBUFFERED"] = "1"
        _default(env, "SANDBOX_SMTP_PORT", lambda: str(self.home.port("smtp_port")))
        _default(env, "SANDBOX_TLS_PORT", lambda: str(self.home.port("tls_port")))
        _default(env, "SECRET_KEY", lambda: self.home.kept("secret_key"))
        _default(env, "PUBLIC_URL", lambda: f"http://localhost:{self.port}")
        _default(env, "SANDBOX_WEBHOOK_URL", lambda: f"http://127.0.0.1:{self.port}/stripe/webhook/")
        env = {**env, **{name: value for name, value in DEFAULTS.items() if not env.get(name)}}
        if not env.get("STRIPE_SECRET_KEY"):
            # A key of one's own means Stripe itself: then the sandbox's other keys would only be in the way.
            env.update(SANDBOX_KEYS)
            env["STRIPE_API_BASE"] = f"{self.sandbox}/stripe"
        if not any(env.get(name) for name in SANDBOX_SUMUP_KEYS) and "_live_" not in env["STRIPE_SECRET_KEY"]:
            # Play money beside Stripe's test keys, but never beside live ones.
            env.update(SANDBOX_SUMUP_KEYS)
            env["SUMUP_API_BASE"] = f"{self.sandbox}/sumup"
        if not any(env.get(name) for name in SANDBOX_KASPI_KEYS) and "_live_" not in env["STRIPE_SECRET_KEY"]:
            env.update(SANDBOX_KASPI_KEYS)
            env["KASPI_API_BASE"] = f"{self.sandbox}/kaspi"
        if not env.get("MAIL_SERVER") and not env.get("MAIL_API_KEY"):
            env.update(
                MAIL_SERVER="127.0.0.1", MAIL_PORT=env["SANDBOX_SMTP_PORT"], MAIL_USE_TLS="", MAIL_USE_SSL=""
            )
        browser = find_browser()
        if browser:
            _default(env, "CHROMIUM", lambda: browser)
        if sys.platform == "darwin":
            # Homebrew's libraries are in no place that Python looks into by itself.
            _default(env, "DYLD_FALLBACK_LIBRARY_PATH", lambda: "/opt/homebrew/lib:/usr/local/lib:/usr/lib")
        return env

    def migrate_and_seed(self) -> None:
        step = Step("Database")
        self.flask(["db", "upgrade"], "The database could not be brought up to date")
        self.flask(["demo", "seed"], "The demo catalogue could not be made")
        step.done("migrated, demo catalogue in place")

    def flask(self, arguments: list[str], problem: str) -> None:
        """Run a flask command, its output to the set-up log; raises Stop with its last lines."""
        log = self.home.log / "setup.log"
        with log.open("ab") as out:
            done = subprocess.run(
                [venv_command("flask"), *arguments],
                env=self.env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C is the launcher's to answer, which then stops the services in order.
                start_new_session=True,
            )
        if done.returncode:
            raise Stop(f"{problem} (flask {' '.join(arguments)}).\n{self.keeper.log_end('setup')}")

    def start_sandbox(self) -> None:
        """Start the sandbox. It comes first, for the demo's organiser connects an account there."""
        step = Step("Sandbox")
        self.keeper.start(
            Program(
                name="sandbox",
                command=[venv_command("python"), "-m", "sandbox"],
                env=self.env,
                ready=lambda: answers(f"{self.sandbox}/control/settings"),
            )
        )
        step.done(f"port {self.sandbox_port}")

    def start_programs(self) -> None:
        """Start what the Procfile names, each seen to be ready."""
        commands = procfile()
        step = Step("Web")
        self._start(commands, "web", lambda: answers(f"http://{self._reachable}:{self.port}/livez"))
        step.done(f"port {self.port}")
        step = Step("Worker and clock")
        self._start(commands, "worker", None)
        self._start(commands, "clock", None)
        step.done("running")

    @property
    def _reachable(self) -> str:
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host

    def _start(self, commands: Mapping[str, str], name: str, ready: Callable[[], bool] | None) -> None:
        # The Procfile's own command, so that what is tried here is what runs on Heroku and Railway.
        self.keeper.start(
            Program(name=name, command=["/bin/sh", "-c", f"exec {commands[name]}"], env=self.env, ready=ready)
        )

    def write_env(self) -> None:
        """Leave the resolved settings for bin/flask, readable by their owner alone.

        Those that this process was given are among them, for bin/flask may be started in another shell.
        """
        ours = setting_names()
        kept = {
            name: value for name, value in self.env.items() if name in ours or os.environ.get(name) != value
        }
        place.write_private(self.home.env_file, json.dumps(kept, indent=2, sort_keys=True) + "\n")


def setting_names() -> set[str]:
    """Every variable that is read as a setting: nothing else of somebody's shell is written to a disk."""
    text = "".join((ROOT / name).read_text() for name in ("config.py", "kaspi_modes.py"))
    return set(re.findall(r'read\.\w+\(\s*"([A-Z_]+)"', text))


def procfile() -> dict[str, str]:
    """The Procfile's processes: name -> command."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {
        name.strip(): command.strip()
        for name, _, command in (line.partition(":") for line in lines)
        if command
    }


def answers(url: str) -> bool:
    """Whether a GET of `url` is a 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _default(env: dict[str, str], name: str, value: Callable[[], str]) -> None:
    if not env.get(name):
        env[name] = value()
