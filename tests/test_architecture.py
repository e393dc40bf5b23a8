"""Who may import whom, and who may write what: kept here, not by good will."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EDGES = ("app", "cli", "worker", "blueprints")
# Layer -> what it must not import. `app.py` binds everything; edges import the domain, never the reverse.
FORBIDDEN = {
    "extensions.py": ("domain", "models", "sandbox", *EDGES),
    "config.py": ("domain", "models", "extensions", "sandbox", "flask", *EDGES),
    "models.py": ("domain", "sandbox", *EDGES),
    "domain": ("flask", "sandbox", *EDGES),
    "domain/providers": (
        "flask",
        "flask_sqlalchemy",
        "sqlalchemy",
        "models",
        "extensions",
        "sandbox",
        *EDGES,
    ),
    "blueprints": ("sandbox", "worker", "cli"),
    "sandbox": ("domain", "models", "extensions", "config", *EDGES),
}


def files(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.suffix else sorted(path.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, at its head or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("place", FORBIDDEN)
def test_imports_point_inward(place: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(place)
        for name in imported(path) & set(FORBIDDEN[place])
    }
    # `worker` builds the application for its jobs, and nothing else reaches up.
    assert wrong == set()


def assigned_attributes(path: Path) -> set[tuple[str, int]]:
    """`name.attribute` of every assignment, with its line."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                    found.add((f"{part.value.id}.{part.attr}", part.lineno))
    return found


def test_only_settling_writes_the_state_of_a_payment() -> None:
    writers = {
        path.relative_to(ROOT).as_posix()
        for place in ("domain", "blueprints", "worker.py", "cli.py")
        for path in files(place)
        for name, _ in assigned_attributes(path)
        if name == "payment.state"
    }
    assert writers == {"domain/payments/settling.py"}


def test_blueprints_decide_nothing_and_name_no_provider() -> None:
    """Views parse, make one domain call and respond; the provider's own addresses are the exception."""
    wrong = []
    for path in files("blueprints"):
        text = path.read_text()
        if "db.session" in text or re.search(r"^from extensions import .*\bdb\b", text, re.M):
            wrong.append(f"{path.name} uses the database session")
        if "import stripe" in text:
            wrong.append(f"{path.name} imports a provider's SDK")
    assert wrong == []


def test_time_has_one_source() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for place in ("domain", "blueprints", "worker.py", "cli.py", "models.py")
        for path in files(place)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"datetime\.(utc)?now\(|date\.today\(|func\.now\(", line) and path.name != "clock.py"
    ]
    assert wrong == []


def test_files_fit_in_a_head() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for place in ("domain", "blueprints", "sandbox", "worker.py", "cli.py", "app.py", "config.py")
        for path in files(place)
        if (lines := len(path.read_text().splitlines())) > 600
    }
    assert long == {}


def test_nothing_is_left_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError|except( Exception)?: *pass")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for place in ("domain", "blueprints", "sandbox", "worker.py", "cli.py", "app.py")
        for path in files(place)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert wrong == []


# Words for the operator name a provider: what to set, and where to look.
NAMES_PROVIDERS = ("doctor.py", "demo.py")


def _rules() -> list[Path]:
    """The files of the domain that decide; the adapters do not."""
    return [path for path in files("domain") if path.parent.name != "providers"]


def test_no_rule_asks_for_a_provider_by_name() -> None:
    """What differs between providers is told by their adapters; see docs/adding-a-provider.md."""
    asked = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in _rules()
        for node in ast.walk(ast.parse(path.read_text()))
        if path.name not in NAMES_PROVIDERS
        and isinstance(node, ast.Compare)
        and any(isinstance(part, ast.Attribute) and part.attr == "provider" for part in ast.walk(node))
        and any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node))
    }
    assert asked == set()
    written = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in _rules()
        for node in ast.walk(ast.parse(path.read_text()))
        if path.name not in NAMES_PROVIDERS
        and isinstance(node, ast.Constant)
        and node.value in ("stripe", "sumup")
    }
    assert written == set()
