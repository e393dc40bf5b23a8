"""bin/test: every check and every test, against a PostgreSQL and a Redis of their own."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from launcher import install, place, say
from launcher.install import venv_command
from launcher.place import ROOT, VENV, Home
from launcher.processes import Keeper
from launcher.say import Step
from launcher.servers import Postgres, Redis

DESCRIPTION = """Check and test everything: ruff, mypy, then pytest on four processes, with Chromium,
PostgreSQL and Redis. Given arguments, they go to pytest, and pytest alone runs: ./bin/test tests -k refund"""
CHECKS = (
    ("Lint", ["ruff", "check", "."]),
    ("Format", ["ruff", "format", "--check", "."]),
)
TYPES = ["mypy"]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bin/test", description=DESCRIPTION)
    parser.add_argument("--yes", action="store_true", help="agree to installing system packages")
    options, for_pytest = parser.parse_known_args(arguments)
    install.prepare("requirements-dev.txt", yes=options.yes or bool(os.environ.get("CI")), for_tests=True)
    folder = Path(tempfile.mkdtemp(prefix="kassa-test-"))
    folder.chmod(0o711)
    home = Home(folder)
    keeper = Keeper(home)
    try:
        env = _services(home, keeper)
        return _all(env) if not for_pytest else _run("Tests", ["pytest", *for_pytest], env)
    except KeyboardInterrupt:
        say.problem("Interrupted.")
        return 130
    finally:
        keeper.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _services(home: Home, keeper: Keeper) -> dict[str, str]:
    """The tests' environment, its two servers started where no URL names them.

    KASSA_TEST_DATABASE_URL is a server where tests may create databases; KASSA_TEST_REDIS_URL one that they
    may flush.
    """
    # A developer's .env must not change what the tests see: an empty variable hides what stands there.
    env = {**os.environ, **{name: "" for name in place.dotenv(ROOT / ".env") if name not in os.environ}}
    database, redis = os.environ.get("DATABASE_URL", ""), os.environ.get("REDIS_URL", "")
    step = Step("PostgreSQL and Redis")
    if not database:
        postgres = Postgres(home, careless=True)
        keeper.start(postgres.program())
        database = postgres.url("postgres")
    if not redis:
        server = Redis(home)
        keeper.start(server.program())
        redis = server.url()
    step.done()
    env.update(KASSA_ENV="development", KASSA_HOME=str(home.path), PYTHONUNBUFFERED="1")
    # The tests choose Redis's databases themselves, so the address is given without one.
    env.update(KASSA_TEST_DATABASE_URL=database, KASSA_TEST_REDIS_URL=re.sub(r"/\d*$", "", redis))
    # Dozens of processes start: none should compile again what another one has, or pip had when it installed.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["PATH"] = f"{VENV / 'bin'}:{env.get('PATH', '/usr/bin:/bin')}"
    env["CHROMIUM"] = env.get("CHROMIUM") or install.find_browser()
    return env


def _all(env: dict[str, str]) -> int:
    """Every check, even after one failed: the first failure is rarely the only one."""
    failed = [title for title, command in CHECKS if _run(title, command, env)]
    # Types take a core for half a minute in a new folder: they are checked meanwhile, and told at the end.
    types = subprocess.Popen(
        [venv_command("python"), "-m", *TYPES],
        env=env,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Four processes: the smallest machines have two cores, and browsers, servers that start and those that
    # are killed let a core wait. Tests that share a server say so with xdist_group.
    if _run("Tests", ["pytest", "-n", "4", "--dist", "loadgroup"], env):
        failed.append("Tests")
    told, _ = types.communicate()
    say.line(f"\nTypes: {' '.join(TYPES)}\n{told.rstrip()}")
    if types.returncode:
        failed.append("Types")
    if failed:
        say.problem(f"Failed: {', '.join(failed)}")
        return 1
    say.line("All good.")
    return 0


def _run(title: str, command: list[str], env: dict[str, str]) -> int:
    say.line(f"\n{title}: {' '.join(command)}")
    return subprocess.run(
        [venv_command("python"), "-m", *command], env=env, cwd=ROOT, stdin=subprocess.DEVNULL
    ).returncode
