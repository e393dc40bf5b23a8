"""Documents that fail tests: what can be set, run and watched is in docs/operating.md, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest
from flask import Flask

import config
import worker
from blueprints.health import REQUEST_METRICS
from domain import health, measures

ROOT = Path(__file__).resolve().parents[1]
OPERATING = (ROOT / "docs" / "operating.md").read_text()
# Commands of Flask and Flask-Migrate, which have their own manuals.
NOT_OURS = ("db", "run", "shell", "routes")


def table(heading: str) -> list[str]:
    """The first cells of the table below a heading, without their backquotes."""
    part = re.split(r"^#+ ", OPERATING.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    return re.findall(r"^\| `([^`]+)` \|", part, re.M)


def settings_read() -> set[str]:
    """Every variable that config.py asks its reader for."""
    return {
        str(node.args[0].value)
        for node in ast.walk(ast.parse((ROOT / "config.py").read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "read"
        and isinstance(node.args[0], ast.Constant)
    }


def commands(group: click.Group, path: str = "flask") -> set[str]:
    found = set()
    for name, command in group.commands.items():
        if path == "flask" and name in NOT_OURS:
            continue
        here = f"{path} {name}"
        found |= commands(command, here) if isinstance(command, click.Group) else {here}
    return found


def test_every_setting_is_documented() -> None:
    documented = table("Settings")
    assert set(documented) == settings_read()
    assert len(documented) == len(set(documented))


def test_defaults_are_as_documented() -> None:
    least = {"SECRET_KEY": "x" * 32, "DATABASE_URL": "postgresql://h/n", "REDIS_URL": "redis://h"}
    settings = config.load(least)
    for name, value in {
        "STRIPE_SESSION_MINUTES": settings.stripe_session_minutes,
        "MAIL_PORT": settings.mail_port,
        "SWEEP_INTERVAL_SECONDS": settings.sweep_interval,
        "SWEEP_BUDGET_SECONDS": settings.sweep_budget,
        "SWEEP_MAX_PAYMENTS": settings.sweep_cap,
        "OPEN_GRACE_MINUTES": settings.open_grace_minutes,
        "STUCK_MINUTES": settings.stuck_minutes,
        "LATE_MONEY": settings.late_money,
        "CURRENCY": settings.currency,
        "WALLET_CURRENCY": settings.wallet_currency,
        "TRUSTED_PROXIES": settings.trusted_proxies,
        "WALLET_TOPUP_AMOUNTS": ",".join(str(amount) for amount in settings.topup_amounts),
    }.items():
        assert f"| `{name}` | {value} |" in OPERATING


def test_every_command_is_documented(app: Flask) -> None:
    documented = {command for command in table("Commands") if not command.startswith("flask db ")}
    assert documented == commands(app.cli)


def test_every_job_is_documented(app: Flask) -> None:
    assert table("Jobs") == [job.id for job in worker.periodic()]
    for job in worker.periodic():
        assert re.search(rf"^\| `{job.id}` \|[^|]*\b{job.seconds}\b", OPERATING, re.M)


def test_every_metric_is_documented() -> None:
    documented = table("Metrics")
    assert documented == [*(metric.name for metric in measures.METRICS), *REQUEST_METRICS]
    for metric in measures.METRICS:
        assert f"| `{metric.name}` | {', '.join(metric.labels)}" in OPERATING.replace("|  |", "| |")


def test_every_graded_part_is_documented(app: Flask) -> None:
    for part in health.report().checks:
        assert f"`{part}`" in OPERATING


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
