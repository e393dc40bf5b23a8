"""Who may import whom, and who may write what: kept here, not by good will.

Each rule is a function from a tree of sources to what is wrong in it. It is asked of the real tree, of which
it must have seen enough, and of trees with a failure planted in them, each of which it must find.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import models
from extensions import Base

ROOT = Path(__file__).resolve().parents[1]
Tree = Mapping[str, str]
PLACES = ("domain", "blueprints", "tables", "sandbox")
TOP = (
    *("app", "cli", "worker", "serving", "config", "variables", "kaspi_modes", "secret_keys"),
    "backup_settings",
    *("extensions", "logs", "models"),
)

# The floors of the domain, from the ground up: a wing imports itself, and lower ones.
FLOORS = (
    *("security", "providers", "catalogue", "tickets", "post", "people", "ledger"),
    *("connections", "payments", "orders", "sweep", "door", "backups", "office"),
)
EDGES = ("app", "cli", "worker", "serving", "blueprints")
OUTSIDE = ("tests", "bench", "logs", "migrations", "gunicorn")
# Place -> what it must not import. `app.py` binds everything; edges import the domain, never the reverse.
FORBIDDEN = {
    "extensions.py": ("domain", "models", "tables", "sandbox", *EDGES),
    "config.py": ("domain", "models", "tables", "extensions", "sandbox", "flask", *EDGES),
    "models.py": ("domain", "extensions", "sandbox", *EDGES),
    "tables/": ("domain", "models", "config", "sandbox", "flask", *OUTSIDE, *EDGES),
    "domain/": ("flask*", "tables", "sandbox", *OUTSIDE, *EDGES),
    "domain/providers/": ("flask_sqlalchemy", "sqlalchemy", "models", "extensions"),
    "blueprints/": ("tables", "sandbox", "app", "worker", "cli", "serving"),
    "worker.py": ("app", "cli", "serving", "blueprints", "sandbox", "tables"),
    "cli.py": ("app", "serving", "blueprints", "sandbox", "tables"),
    "sandbox/": ("domain", "models", "tables", "extensions", "config", *EDGES),
}
# Who may name a module in a string: adapters are loaded when they are first asked for.
LOADERS = ("domain/providers/registry.py", "domain/providers/connecting.py")


@cache
def real() -> Tree:
    """Every source of the program itself, by its path from the root."""
    paths = [path for place in PLACES for path in (ROOT / place).rglob("*.py")]
    paths += [ROOT / f"{name}.py" for name in TOP]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def planted(path: str, text: str, *, whole: bool) -> Tree:
    """A file with a few more lines at its end, or a new one; beside it the whole tree, or only its names."""
    beside = real() if whole else dict.fromkeys(real(), "")
    return {**beside, path: f"{real().get(path, '')}\n{text}\n"}


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def module(path: str) -> str:
    """The name under which a file is imported."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def _modules(paths: frozenset[str]) -> frozenset[str]:
    return frozenset(module(path) for path in paths)


# --- Imports --------------------------------------------------------------------------------------------


def imports(tree: Tree, path: str, *, types: bool = True) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, at its head, in a function, or by a name in a string; with the line.

    Without `types`, what is imported for the type checker alone is left out.
    """
    known = _modules(frozenset(tree))
    skipped: set[ast.AST] = set()
    for node in ast.walk(parsed(tree[path])):
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {inner for part in node.body for inner in ast.walk(part)}
    for node in ast.walk(parsed(tree[path])):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module, node.lineno
        elif isinstance(node, ast.Call) and _called(node) in _LOAD:
            named = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            yield from ((str(name), node.lineno) for name in named)


_LOAD = ("import_module", "__import__")


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_in(name: str, package: str) -> bool:
    """Whether a module is a package, or in it; `flask*` is each whose name begins so."""
    if package.endswith("*"):
        return name.startswith(package[:-1])
    return name == package or name.startswith(f"{package}.")


def outward(tree: Tree) -> list[str]:
    """Imports that point outward: from the domain to an edge, from a table to the domain, ..."""
    return [
        f"{path}:{line} imports {name}"
        for place, forbidden in FORBIDDEN.items()
        for path in tree
        if path == place or place.endswith("/") and path.startswith(place)
        for name, line in imports(tree, path)
        if any(_is_in(name, package) for package in forbidden)
    ]


def upward(tree: Tree) -> list[str]:
    """Imports in the domain that point to a higher floor; the ground is below them all."""
    return [
        f"{path}:{line} imports {name}"
        for path in tree
        if path.startswith("domain/")
        for name, line in imports(tree, path)
        if name.startswith("domain.") and _floor(name) > _floor(module(path))
    ]


def _floor(name: str) -> int:
    wing = name.split(".")[1]
    return FLOORS.index(wing) if wing in FLOORS else -1


def circles(tree: Tree) -> list[str]:
    """Files that import each other, by whatever way around. Tables know each other's types alone."""
    paths = {module(path): path for path in tree}
    arrows = {
        name: {
            other
            for other, _ in imports(tree, path, types=not path.startswith("tables/"))
            if other in paths and other != name
        }
        for name, path in paths.items()
    }
    # What nobody leads back to is taken away, until only circles are left.
    while True:
        wanted = {other for others in arrows.values() for other in others}
        ends = [name for name, others in arrows.items() if not others or name not in wanted]
        if not ends:
            return sorted(paths[name] for name in arrows)
        for name in ends:
            del arrows[name]
        arrows = {name: others - set(ends) for name, others in arrows.items()}


def side_by_side(tree: Tree) -> list[str]:
    """Tables that import each other while they run: another file's table is named by a string."""
    return [
        f"{path}:{line} imports {name}"
        for path in tree
        if path.startswith("tables/")
        for name, line in imports(tree, path, types=False)
        if name.startswith("tables.") and name != "tables.base"
    ]


def indirect(tree: Tree) -> list[str]:
    """Imports that the other rules do not follow: relative ones, whole packages, a renamed loader."""
    wrong = []
    for path, text in tree.items():
        for node in ast.walk(parsed(text)):
            relative = isinstance(node, ast.ImportFrom) and node.level
            whole = isinstance(node, ast.Import) and {alias.name for alias in node.names} & set(PLACES)
            renamed = isinstance(node, ast.ImportFrom) and any(
                alias.name in _LOAD and alias.asname for alias in node.names
            )
            if relative or whole or renamed:
                wrong.append(f"{path}:{getattr(node, 'lineno', 0)}")
    return wrong


def jobs(tree: Tree) -> list[str]:
    """Jobs that are asked for by a name that worker.py does not have."""
    known = {
        node.name
        for node in parsed(tree["worker.py"] or real()["worker.py"]).body
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(d) == "_job" for d in node.decorator_list)
    }
    return [
        f"{path}:{node.lineno} asks for {ast.unparse(node.args[position])}"
        for path, text in tree.items()
        for node in ast.walk(parsed(text))
        if isinstance(node, ast.Call) and _called(node) in ("soon", "Periodic")
        for position in [0 if _called(node) == "soon" else 1]
        if len(node.args) > position and isinstance(node.args[position], ast.Constant)
        if str(ast.literal_eval(node.args[position])).removeprefix("worker.") not in known
    ]


def hidden(tree: Tree) -> list[str]:
    """Modules that are loaded by a name in a string, outside of the few files that may."""
    return [
        f"{path}:{node.lineno}"
        for path, text in tree.items()
        if path not in LOADERS
        for node in ast.walk(parsed(text))
        if isinstance(node, ast.Call) and _called(node) in _LOAD
    ]


# --- Who writes what ------------------------------------------------------------------------------------

SETTLING = "domain/payments/settling.py"
# Whose `.state` others write. A variable of another name is asked about: it may be a payment.
STATES_OF = ("event", "order", "refund", "dispute", "ticket", "mail", "organiser")
# Who sets whatever columns a form has, none of which is a payment's.
SETTERS = (
    "domain/catalogue/events.py",
    "domain/catalogue/tournaments.py",
    "domain/ledger/agents.py",
    "domain/people/athletes.py",
    "domain/people/organisers.py",
)


def payment_states(tree: Tree) -> list[str]:
    """Writes of a payment's state outside of settling: by attribute, by setattr, by a statement, by SQL."""
    wrong = []
    for path, text in tree.items():
        if path == SETTLING or path.startswith(("sandbox/", "tables/")):
            continue
        for node in ast.walk(parsed(text)):
            if any(
                found(path, node)
                for found in (_assigns_state, _sets_state, _updates_state, _executes_many, _in_sql)
            ):
                wrong.append(f"{path}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)[:80]}")
    return wrong


def _assigns_state(path: str, node: ast.AST) -> bool:
    if isinstance(node, ast.Assign):
        pairs = [pair for target in node.targets for pair in _pairs(target, node.value)]
    elif isinstance(node, ast.AugAssign | ast.AnnAssign) and node.value is not None:
        pairs = [(node.target, node.value)]
    else:
        return False
    return any(_writes_payment(target, value) for target, value in pairs)


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """What is written to what: in `a, b = 1, 2` each its own."""
    if not isinstance(target, ast.Tuple | ast.List):
        return [(target, value)]
    values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    one_by_one = values if len(values) == len(target.elts) else [value] * len(target.elts)
    return [pair for part, its in zip(target.elts, one_by_one, strict=True) for pair in _pairs(part, its)]


def _writes_payment(target: ast.expr, value: ast.expr) -> bool:
    """Whether a `.state` is written that is a payment's, or may be one."""
    if not isinstance(target, ast.Attribute) or target.attr != "state":
        return False
    of, words = ast.unparse(target.value).split(".")[-1], ast.unparse(value)
    if of == "payment" or "PaymentState" in words:
        return True
    another = re.match(r"[A-Z]\w+State\.|[A-Z]\w+State\(", words)
    return of not in STATES_OF and not another


def _sets_state(path: str, node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or _called(node) not in ("setattr", "__setattr__"):
        return False
    names = [arg for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return any(name.value == "state" for name in names) if names else path not in SETTERS


def _updates_state(path: str, node: ast.AST) -> bool:
    """`update(Payment)....values(state=...)`, and bulk writes like it; a new row is in its first state."""
    if not isinstance(node, ast.Call) or _called(node) not in ("values", "update", "Payment", "merge"):
        return False
    named = {key.arg: key.value for key in node.keywords}
    for part in node.args:
        if isinstance(part, ast.Dict):
            named |= {
                ast.unparse(key).strip("'\""): value
                for key, value in zip(part.keys, part.values, strict=True)
                if key
            }
    states = [value for name, value in named.items() if name and name.split(".")[-1] == "state"]
    if _called(node) == "Payment":
        return None in named or any(ast.unparse(value) != "PaymentState.CREATED" for value in states)
    words = ast.unparse(node.func)
    if re.search(r"\bPayment\b", words):
        # What is spread into it, or given beside it, may be anything.
        return bool(states) or None in named or _called(node) == "update" and bool(node.args)
    others = any(re.search(rf"\b{name}\b", words) for name in _TABLES)
    told = [ast.unparse(value) for value in states]
    return any("PaymentState" in word or not others and "State." not in word for word in told)


def _executes_many(path: str, node: ast.AST) -> bool:
    """`execute(update(Payment), [...])`: the values stand beside the statement."""
    if not isinstance(node, ast.Call) or not _called(node).startswith("execute") or len(node.args) < 2:
        return False
    return bool(re.search(r"\b(update|insert)\(Payment\)", ast.unparse(node.args[0])))


def _in_sql(path: str, node: ast.AST) -> bool:
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    return bool(re.search(r"\bUPDATE\s+payments\b[^;]*\bSET\b[^;]*\bstate\s*=", text, re.I))


def sessions(tree: Tree) -> list[str]:
    """Views that speak to the database themselves: they parse, make one call into the domain, and respond."""
    wrong = []
    for path, text in tree.items():
        for node in ast.walk(parsed(text)) if path.startswith("blueprints/") else ():
            uses = isinstance(node, ast.Attribute) and (
                node.attr == "session"
                and ast.unparse(node.value).split(".")[-1] == "db"
                or node.attr in ("query", "engine")
                and ast.unparse(node.value).split(".")[-1] in ("db", *_TABLES)
            )
            takes = (
                isinstance(node, ast.ImportFrom)
                and node.module == "extensions"
                and ({alias.name for alias in node.names} & {"db", "own_session"})
            )
            if uses or takes:
                wrong.append(f"{path}:{getattr(node, 'lineno', 0)}")
    return wrong


_TABLES = tuple(models.__all__)


def sdks(tree: Tree) -> list[str]:
    """A provider's SDK outside of its adapter."""
    return [
        f"{path}:{line} imports {name}"
        for path in tree
        if not path.startswith(("domain/providers/", "sandbox/"))
        for name, line in imports(tree, path)
        if any(_is_in(name, sdk) for sdk in ("stripe", "sumup"))
    ]


# --- What is written how --------------------------------------------------------------------------------

# Words for the operator name a provider: what to set, and where to look.
NAMES_PROVIDERS = ("domain/office/doctor.py", "domain/office/demo.py")


def provider_names(tree: Tree) -> list[str]:
    """Rules that ask for a provider by name; see docs/adding-a-provider.md."""
    return [
        f"{path}:{getattr(node, 'lineno', 0)}"
        for path, text in tree.items()
        if path.startswith("domain/")
        and not path.startswith("domain/providers/")
        and path not in NAMES_PROVIDERS
        for node in ast.walk(parsed(text))
        if isinstance(node, ast.Constant)
        and node.value in ("stripe", "sumup", "kaspi")
        or _compares_provider(node)
    ]


def _compares_provider(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare):
        return False
    parts = list(ast.walk(node))
    asks = any(isinstance(part, ast.Attribute) and part.attr == "provider" for part in parts)
    return asks and any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts)


def other_clocks(tree: Tree) -> list[str]:
    """Times that do not come from domain/clock.py; how long something took is told by `monotonic`."""
    mark = re.compile(r"datetime\.(utc)?now\(|\bdate(time)?\.today\(|func\.(now|current_timestamp)\(")
    return [
        f"{path}:{number}"
        for path, text in tree.items()
        if path != "domain/clock.py" and not path.startswith("sandbox/")
        for number, line in enumerate(text.splitlines(), 1)
        if mark.search(line)
    ]


def lengths(tree: Tree) -> list[str]:
    """Files that do not fit in a head, and functions that do not fit on a screen."""
    long = [
        f"{path}: {lines} lines" for path, text in tree.items() if (lines := len(text.splitlines())) > 600
    ]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return long + [
        f"{path}:{node.lineno} {node.name}"
        for path, text in tree.items()
        for node in ast.walk(parsed(text))
        if isinstance(node, functions) and (node.end_lineno or 0) - node.lineno + 1 > 70
    ]


def unfinished(tree: Tree) -> list[str]:
    mark = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError|except( Exception)?: *pass")
    return [
        f"{path}:{number}"
        for path, text in tree.items()
        for number, line in enumerate(text.splitlines(), 1)
        if mark.search(line)
    ]


def doors(tree: Tree) -> list[str]:
    """Wings whose door is no docstring alone, or is not there; and files that repeat their wing's name."""
    wrong = [f"domain/{wing} has no door" for wing in FLOORS if f"domain/{wing}/__init__.py" not in tree]
    for path, text in tree.items():
        parts = path.split("/")
        if parts[0] != "domain" or len(parts) < 3:
            continue
        if parts[1] not in FLOORS:
            wrong.append(f"{path} is on no floor")
        if parts[-1] == "__init__.py" and (
            len(parsed(text).body) != 1 or not ast.get_docstring(parsed(text))
        ):
            wrong.append(f"{path} is more than a docstring")
        if parts[-1].removesuffix(".py") in (parts[1], f"{parts[1]}s", parts[1].removesuffix("s")):
            wrong.append(f"{path} repeats its wing's name")
    return wrong


Rule = Callable[[Tree], list[str]]
RULES: tuple[Rule, ...] = (
    *(outward, upward, circles, side_by_side, indirect, hidden, jobs, payment_states, sessions, sdks),
    *(provider_names, other_clocks, lengths, unfinished, doors),
)


def test_the_rules_see_the_whole_house() -> None:
    counts = {place: sum(path.startswith(f"{place}/") for path in real()) for place in PLACES}
    least = {"domain": 110, "blueprints": 35, "tables": 12, "sandbox": 30}
    assert all(counts[place] >= least[place] for place in PLACES), counts
    wings = {path.split("/")[1] for path in real() if path.startswith("domain/") and path.count("/") == 2}
    assert wings == set(FLOORS)
    assert {path.stem for path in ROOT.glob("*.py")} - {"gunicorn.conf"} == set(TOP)
    kept = {path.parent.name for path in ROOT.glob("*/*.py")} - {
        "tests",
        "bench",
        "migrations",
        "bin",
        "deploy",
    }
    assert {name for name in kept if not name.startswith(".")} <= set(PLACES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_holds(rule: Rule) -> None:
    assert rule(real()) == []


STATE = "domain/orders/placing.py"
PLANTED: tuple[tuple[Rule, str, str], ...] = (
    # An arrow upwards: at the head, in a function, by a name in a string.
    (upward, "domain/ledger/wallet.py", "from domain.payments import refunds"),
    (upward, "domain/ledger/wallet.py", "import domain.office.doctor"),
    (upward, "domain/money.py", "def convert() -> None:\n    from domain.catalogue.prices import check"),
    (upward, "domain/post/outbox.py", 'people = import_module("domain.people.accounts")'),
    (
        upward,
        "domain/clock.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from domain.door import staff",
    ),
    (outward, "domain/door/staff.py", "from flask import request"),
    (outward, "domain/door/staff.py", "from blueprints import access"),
    (outward, "domain/office/demo.py", 'import_module("app")'),
    (outward, "domain/orders/new.py", "from tables.orders import Order"),
    (outward, "domain/providers/stripe.py", "from sqlalchemy import select"),
    (outward, "tables/orders.py", "from domain import clock"),
    (outward, "blueprints/shop/events.py", "from sandbox import clock"),
    (outward, "worker.py", "def _app() -> None:\n    from app import create_app"),
    (circles, "domain/clock.py", "from domain import timeline"),
    (circles, "domain/security/logins.py", "def again() -> None:\n    from domain.security import logins2"),
    (side_by_side, "tables/people.py", "from tables.orders import Order"),
    (outward, "domain/door/staff.py", "from flask_login import current_user"),
    (outward, "domain/door/staff.py", "from tests.support import shop"),
    (indirect, "domain/ledger/wallet.py", "from ..office import doctor"),
    (indirect, "domain/clock.py", "from . import timeline"),
    (indirect, "domain/clock.py", "import domain"),
    (indirect, "domain/clock.py", "from importlib import import_module as load"),
    (jobs, "domain/catalogue/event_moves.py", 'queue.soon("moved_event")'),
    (jobs, "domain/clock.py", 'Periodic("kassa-x", "worker.nothing", 60)'),
    (hidden, "blueprints/shop/events.py", 'import_module("domain.clock")'),
    (hidden, "worker.py", 'importlib.import_module(f"domain.{name}")'),
    # A payment's state: by the usual name, by another one, in a tuple, by setattr, by statements, by SQL.
    (payment_states, STATE, "payment.state = PaymentState.PAID"),
    (payment_states, STATE, "attempt.state = state"),
    (payment_states, STATE, "payment.state, order.state = state, OrderState.COMPLETED"),
    (payment_states, STATE, "payment.state = NEXT[OrderState.PENDING]"),
    (payment_states, STATE, "order.state, attempt.state = OrderState.COMPLETED, state"),
    (payment_states, STATE, "db.session.execute(update(Payment).values(**changes))"),
    (payment_states, STATE, 'db.session.execute(update(Payment), [{"id": 1, "state": state}])'),
    (payment_states, STATE, "pays = update(Payment)\npays.values(state=state)"),
    (payment_states, STATE, "Payment(**columns)"),
    (payment_states, STATE, "order.payments[0].state = state"),
    (payment_states, STATE, "attempt.state, attempt.paid_at = state, now"),
    (payment_states, STATE, "order.state = PaymentState.PAID"),
    (payment_states, STATE, "setattr(attempt, 'state', state)"),
    (payment_states, STATE, "setattr(attempt, name, state)"),
    (payment_states, STATE, "db.session.execute(update(Payment).where(Payment.id == 1).values(state=state))"),
    (payment_states, STATE, "change = statement.values(state=PaymentState.PAID)"),
    (payment_states, STATE, "db.session.execute(update(Payment).values({Payment.state: state}))"),
    (payment_states, STATE, 'db.session.query(Payment).update({"state": state})'),
    (
        payment_states,
        STATE,
        "db.session.execute(text(\"UPDATE payments SET paid_at = now, state = 'paid'\"))",
    ),
    (payment_states, STATE, "Payment(order=order, state=PaymentState.PAID)"),
    (payment_states, "blueprints/shop/payments.py", "payment.state = PaymentState.PAID"),
    (payment_states, "cli.py", "payment.state = PaymentState.PAID"),
    (sessions, "blueprints/shop/events.py", "from extensions import db"),
    (sessions, "blueprints/shop/events.py", "extensions.db.session.commit()"),
    (sessions, "blueprints/office/records.py", "Event.query.all()"),
    (sdks, "blueprints/shop/payments.py", "import stripe"),
    (sdks, "domain/payments/refunds.py", "def again() -> None:\n    from stripe import Refund"),
    (provider_names, "domain/payments/refunds.py", 'name = "sumup"'),
    (provider_names, "domain/payments/refunds.py", "if payment.provider == 'kaspi':\n    pass"),
    (provider_names, "domain/orders/new.py", 'WAYS = ("stripe", "wallet")'),
    (other_clocks, "domain/orders/placing.py", "now = datetime.now(UTC)"),
    (other_clocks, "tables/orders.py", "created_at = mapped_column(Time, default=func.now())"),
    (other_clocks, "worker.py", "today = date.today()"),
    (lengths, "domain/clock.py", "\n" * 600),
    (lengths, "domain/sweep/lanes.py", "def long() -> None:\n" + "    pass\n" * 71),
    (unfinished, "domain/clock.py", "# " + "TO" + "DO: zones"),
    (doors, "domain/door/__init__.py", "from domain.door import staff"),
    (doors, "domain/door/door.py", '"""The door."""'),
    (doors, "domain/reports/days.py", '"""Reports."""'),
)


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    PLANTED,
    ids=[f"{rule.__name__} {number}" for number, (rule, *_) in enumerate(PLANTED)],
)
def test_a_planted_failure_is_found(rule: Rule, path: str, text: str) -> None:
    tree = planted(path, text, whole=rule is circles)
    if "logins2" in text:
        tree = {**tree, "domain/security/logins2.py": "from domain.security import logins"}
    found = rule(tree)
    assert found and any(path in one for one in found), found


def test_every_rule_has_a_planted_failure() -> None:
    assert {rule for rule, *_ in PLANTED} == set(RULES)


# --- The data dictionary, and the wings' doors ----------------------------------------------------------


def test_models_names_every_table() -> None:
    mapped = {mapper.class_.__name__ for mapper in Base.registry.mappers}
    assert mapped <= set(models.__all__) and len(mapped) == len(Base.metadata.tables)
    assert all(hasattr(models, name) for name in models.__all__)


@pytest.mark.parametrize("wing", FLOORS)
def test_what_a_door_names_is_there(wing: str) -> None:
    words = ast.get_docstring(parsed(real()[f"domain/{wing}/__init__.py"])) or ""
    named = re.findall(r"`([a-z_]+)\.((?!py`)[A-Za-z_]+)`", words)
    verbs = [(file, name) for file, name in named if (file, name) != ("payment", "state")]
    for file, name in verbs:
        assert f"domain/{wing}/{file}.py" in real(), f"{file}.{name}"
        assert hasattr(import_module(f"domain.{wing}.{file}"), name), f"{file}.{name}"
    files = re.findall(r"(?<![\w/])([a-z_]+)\.py", words)
    assert verbs and all(f"domain/{wing}/{file}.py" in real() for file in files)
