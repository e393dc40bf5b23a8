"""bin/flask: an operator's command with the settings and services of the instance in KASSA_HOME."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from launcher import place, say
from launcher.install import venv_command
from launcher.instance import Instance
from launcher.place import ROOT, Home
from launcher.processes import clean_leftovers, read_noted, started_at
from launcher.say import Stop


def main(arguments: list[str]) -> int:
    say.beside_output()
    if os.environ.get("KASSA_ENV", "development") != "development":
        # On a server of one's own: its environment is complete, and nothing of ours belongs in between.
        os.chdir(ROOT)
        os.execv(venv_command("flask"), ["flask", *arguments])
    home_path = place.home_path(place.environment())
    if not Path(venv_command("flask")).exists() or not home_path.is_dir():
        raise Stop(f"There is no Kassa in {home_path} yet. Start it once: ./bin/run")
    home = Home(home_path)
    if home.is_running() or _left_running(home):
        return _flask(arguments, _running_env(home))
    return _with_services(home, arguments)


def _left_running(home: Home) -> bool:
    """Whether a launcher that was killed has left its services running: they can be used as they are."""
    noted = read_noted(home)
    alive = [name for name, note in noted.items() if started_at(int(note["pid"])) == note["started"]]
    return (
        home.env_file.exists()
        and bool(alive)
        and all(name in alive for name in ("postgres", "redis") if name in noted)
    )


def _running_env(home: Home) -> dict[str, str]:
    try:
        settings = json.loads(home.env_file.read_text())
    except (OSError, ValueError):
        raise Stop("Kassa is still starting; try again in a moment.") from None
    return {**os.environ, **settings}


def _with_services(home: Home, arguments: list[str]) -> int:
    """Nothing runs: PostgreSQL and Redis are started for as long as the command takes."""
    with home.lock(wait=True):
        clean_leftovers(home)
        instance = Instance(home, place.environment())
        say.line("Kassa is not running; starting its database for this command.")
        try:
            instance.start_services()
            return _flask(arguments, instance.env)
        finally:
            instance.keeper.stop()


def _flask(arguments: list[str], env: dict[str, str]) -> int:
    try:
        return subprocess.run([venv_command("flask"), *arguments], env=env, cwd=ROOT).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        sys.stdout.flush()
