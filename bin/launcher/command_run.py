"""bin/run: everything started, shown, kept alive, and stopped again."""

from __future__ import annotations

import argparse
import os
import signal

from launcher import install, place, say
from launcher.instance import Instance
from launcher.place import Home
from launcher.processes import clean_leftovers

DESCRIPTION = """Start the whole of Kassa on this machine: PostgreSQL, Redis, the payment sandbox, web, worker
and clock, with a demo catalogue. The first start installs what is missing; Ctrl-C stops everything."""
EPILOG = """Settings come from the environment or from .env (see .env.example): PORT, SANDBOX_PORT,
KASSA_HOME, DATABASE_URL, REDIS_URL, STRIPE_SECRET_KEY and the others of docs/operating.md."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bin/run", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--yes", action="store_true", help="agree to installing system packages")
    options = parser.parse_args(arguments)
    environ = place.environment()
    home = Home(place.home_path(environ))
    with home.lock(wait=False):
        return _run(home, Instance(home, environ), yes=options.yes)


def _run(home: Home, instance: Instance, *, yes: bool) -> int:
    (home.run / "run.pid").write_text(f"{os.getpid()}\n")
    try:
        say.line("Kassa is starting.")
        leftovers = clean_leftovers(home)
        if leftovers:
            say.line(f"  Ended what an earlier start had left: {', '.join(leftovers)}")
        instance.check_ports()
        install.check_disk(home.path, install.RUNNING_MB)
        install.prepare("requirements-local.txt", yes=yes)
        instance.start_services()
        instance.start_sandbox()
        instance.migrate_and_seed()
        instance.write_env()
        instance.start_programs()
        say.line(summary(instance))
        instance.keeper.watch()
    except KeyboardInterrupt:
        say.line("\nStopping ...")
    finally:
        _stop(instance)
        (home.run / "run.pid").unlink(missing_ok=True)
    say.line("Stopped. Everything is kept; ./bin/run goes on from here.")
    return 0


def _stop(instance: Instance) -> None:
    # A second Ctrl-C must not interrupt the stopping and leave PostgreSQL behind; each stop has a time limit.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    instance.keeper.stop()


def summary(instance: Instance) -> str:
    """What to open, who to be, how to pay, how to stop."""
    env = instance.env
    address = env["PUBLIC_URL"]
    if "STRIPE_API_BASE" in env and env["STRIPE_API_BASE"].startswith(instance.sandbox):
        pay = "card 4242 4242 4242 4242, any later date, any CVC; 4000 0000 0000 0002 is declined"
    else:
        pay = "Stripe itself, with the key you gave"
    mail = (
        f"{instance.sandbox}/mail"
        if env["MAIL_SERVER"] == "127.0.0.1"
        else "sent for real, by the server you gave"
    )
    rows = [
        ("Shop", address),
        ("Mail it sent", mail),
        ("Pay with", pay),
        ("Sign in", "admin, organiser, door or buyer @example.org, password kassa-demo"),
        ("Commands", "./bin/flask payments sweep --verbose, ./bin/flask doctor"),
        ("Logs and pids", f"{instance.home.path}/log, {instance.home.path}/run"),
        ("Stop", "Ctrl-C"),
    ]
    return "\nKassa is open.\n\n" + "\n".join(f"  {name:<15}{value}" for name, value in rows) + "\n"
