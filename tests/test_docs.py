"""Documents that fail tests: what can be set, run and watched is in docs/operating.md, and nothing else.

Paths, links, commands, variables and examples in the other documents are compared with the tree too.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from flask import Flask

import config
import worker
from blueprints.office.health import REQUEST_METRICS
from domain.office import demo, health, metrics
from sandbox.stripe import cards
from tests.support.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[1]
OPERATING = (ROOT / "docs" / "operating.md").read_text()
# Commands of Flask and Flask-Migrate, which have their own manuals.
NOT_OURS = ("db", "run", "shell", "routes")


def table(heading: str) -> list[str]:
    """The first cells of the table below a heading, without their backquotes."""
    part = re.split(r"^#+ ", OPERATING.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    return re.findall(r"^\| `([^`]+)` \|", part, re.M)


def settings_read() -> set[str]:
    """Every variable that a reader is asked for."""
    return {
        str(node.args[0].value)
        for name in ("config.py", "kaspi_modes.py", "backup_settings.py")
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
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
    assert documented == [*(metric.name for metric in metrics.METRICS), *REQUEST_METRICS]
    for metric in metrics.METRICS:
        assert f"| `{metric.name}` | {', '.join(metric.labels)}" in OPERATING.replace("|  |", "| |")


def test_every_graded_part_is_documented(app: Flask) -> None:
    for part in health.report().checks:
        assert f"`{part}`" in OPERATING


# --- What the other documents say -----------------------------------------------------------------------

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# Made by bin/run and by people, so not in a clone.
MADE_LATER = (".venv", ".kassa", ".kassa2", ".env")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def named(page: Path) -> str:
    return page.name


def tree() -> set[str]:
    """Every file and folder, as a path from the root."""
    return {
        str(path.relative_to(ROOT))
        for top in ROOT.iterdir()
        if top.name not in (".git", ".venv") and not top.name.startswith(".kassa")
        for path in (top, *top.rglob("*"))
        if "__pycache__" not in path.parts
    }


def quoted(page: Path) -> list[str]:
    """What stands between backquotes in the running text."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The headings' addresses, as they are made on the repository's site."""
    text = BLOCK.sub("", page.read_text())
    titles = (title.lower() for title in re.findall(r"^#+ (.+)$", text, re.M))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def lines_of_shell(page: Path) -> list[str]:
    """Commands: lines of shell blocks, and what stands between backquotes."""
    blocks = [body for language, body in BLOCK.findall(page.read_text()) if language in ("sh", "")]
    return [*(line.strip() for body in blocks for line in body.splitlines()), *quoted(page)]


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", page.read_text()):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{page.name} leads to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} leads to {target}#{anchor}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_paths_that_are_named_exist(page: Path) -> None:
    files = tree()
    names, tops = {Path(file).name for file in files}, {file.split("/")[0] for file in files}
    for text in quoted(page):
        path = text.split(" ")[0].removeprefix("./").rstrip("/")
        if not re.fullmatch(r"[\w.][\w./-]*", path) or path.split("/")[0] in MADE_LATER:
            continue
        if "/" in path and path.split("/")[0] in tops or path.endswith((".md", ".json", ".ini")):
            assert path in files, f"{page.name} names {path}"
        elif path.endswith(".py"):
            assert Path(path).name in names, f"{page.name} names {path}"


def test_who_wants_something_is_led_to_it() -> None:
    """Each row of the guide's table names files, and what is in them."""
    table = (ROOT / "CONTRIBUTING.md").read_text().split("## I want to ...")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "I want to" not in line]
    assert len(rows) >= 15
    for row in rows:
        said = re.findall(r"`([^`]+)`", row)
        paths = [ROOT / text for text in said if "/" in text or text.endswith(".py")]
        texts = [path.read_text() for path in paths if path.is_file()]
        names = [text for text in said if re.fullmatch(r"[A-Za-z_]+", text) and text not in ("tests", "load")]
        assert paths and all(path.exists() for path in paths) or "adding-a-provider" in row, row
        missing = [name for name in names if not any(re.search(rf"\b{name}\b", text) for text in texts)]
        assert missing == [], row


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_commands_that_are_named_exist(app: Flask, page: Path) -> None:
    for line in lines_of_shell(page):
        for words in re.findall(r"(?:^|[\s/])flask ((?:[\w.@…<>-]+ ?)+)", line):
            _follow(app.cli, words.split(), f"{page.name}: {line}")


def _follow(group: click.Command, words: list[str], where: str) -> None:
    """Go down the tree of commands by the words; what is left must be options and arguments it takes."""
    command = group
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0] in ("db", "shell", "routes"):
            return
        assert words[0] in command.commands, where
        command = command.commands[words.pop(0)]
    taken = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= taken, where


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_environment_variables_that_are_named_are_read(page: Path) -> None:
    source = "".join(
        path.read_text()
        for path in [
            *ROOT.glob("*.py"),
            *(ROOT / "bin").rglob("*.py"),
            *(ROOT / "tests").rglob("*.py"),
            *(ROOT / "sandbox").rglob("*.py"),
            ROOT / "Procfile",
        ]
        if path != Path(__file__)
    )
    for text in quoted(page):
        for name in re.findall(r"\b([A-Z][A-Z0-9]*_[A-Z0-9_]+)\b(?==|$)", text):
            assert name in source, f"{page.name} names {name}"


def test_the_guide_to_a_provider_shows_code_that_is_tested() -> None:
    pebble = (ROOT / "tests" / "support" / "pebble.py").read_text()
    blocks = [
        body
        for language, body in BLOCK.findall((ROOT / "docs" / "adding-a-provider.md").read_text())
        if language == "python"
    ]
    assert len(blocks) >= 10
    for body in blocks:
        for piece in body.strip("\n").split("\n\n"):
            assert piece in pebble, piece


def test_the_example_of_a_test_passes(app: Flask, sandbox: Sandbox) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(compile(example, "CONTRIBUTING.md", "exec"), names)
    names["test_who_closed_the_tab_is_found"](app, sandbox)


def test_what_the_readme_says_of_the_demo(app: Flask) -> None:
    readme = (ROOT / "README.md").read_text()
    assert f"password `{demo.PASSWORD}`" in " ".join(readme.split())
    for name in demo.NAMES:
        assert f"`{name}@example.org`" in readme
    for number in re.findall(r"^\| ((?:\d{4} ){3}\d{4}) \|", readme, re.M):
        card = cards.Card(number.replace(" ", ""))
        told = re.search(rf"^\| {number} \| ([^|]*) \|$", readme, re.M)
        assert told is not None
        expected = {
            cards.Fate.OK: "it is paid",
            cards.Fate.DECLINED: "it is declined",
            cards.Fate.AUTHENTICATE: "the bank asks",
            cards.Fate.DISPUTED: "it is paid, then disputed",
        }
        assert told[1].startswith(expected[card.fate])


def test_the_changelog_has_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
