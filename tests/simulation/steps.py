"""What buyers' lives are made of: an order as its buyer has it, and the doors that lead back to it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from domain.orders import managing
from models import OrderState
from tests.simulation import doors
from tests.simulation.world import Act, Result, Wait, World

Steps = Generator[Act | Wait, Result, None]


@dataclass
class Case:
    """An order as its buyer has it. `session` is the id in the link to the provider's page, or ''."""

    order_id: int
    code: str
    secret: str
    user_id: int | None = None
    top_up: bool = False
    session: str = ""
    # Through which providers it can be paid.
    ways: tuple[str, ...] = ("stripe",)
    # The participant whose place it is, where it is an entry in a tournament; else "".
    entry: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.session[-6:]}"


def cancel(case: Case) -> OrderState:
    """The button on the order page."""
    return managing.cancel(managing.find(case.code, case.secret), door="order_page").state


def open_doors(world: World, case: Case, times: int) -> Steps:
    """Doors that this buyer, the operator and the provider open, in any order and again."""
    for _ in range(times):
        door = world.rng.choices(
            ("success", "order_page", "webhook", "recheck", "verify"), (45, 25, 20, 5, 5)
        )[0]
        if door == "webhook":
            world.ring_one()
            continue
        if door == "success" and case.top_up:
            door = "wallet_success"
        world.coverage.note("door", door)
        yield Act(door, partial(_open, world.admin_id, case, door))


def _open(admin_id: int, case: Case, door: str) -> None:
    known = doors.payment_of(case.order_id)
    session = case.session or (known[1] if known is not None else "")
    calls: dict[str, Callable[[], Any]] = {
        "success": lambda: doors.success(case.code, case.secret, doors.told_on_return(session)),
        "wallet_success": lambda: doors.wallet_success(case.user_id or 0, session),
        "order_page": lambda: doors.order_page(case.code, case.secret),
        "recheck": lambda: doors.recheck(known[0], admin_id) if known is not None else None,
        "verify": lambda: doors.verify(case.code),
    }
    calls[door]()


def surely(world: World, case: Case, door: str) -> Steps:
    """A door that is opened again when the process died in it, under a clear sky."""
    world.clear_sky()
    for _ in range(3):
        result = yield Act(door, partial(_open, world.admin_id, case, door))
        if not result.died:
            return
