"""What buyers do at the provider, and which doors they open afterwards: a script for each way to behave."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.simulation import doors
from tests.simulation.steps import Case, Steps, cancel, open_doors, surely
from tests.simulation.world import Act, Wait, World

Script = Callable[[World, Case], Steps]
_CARDS = ("4242424242424242", "4000000000007726", "4000000000005126", "4000000000000259")
# SumUp's page is closed two hours after it was opened.
_SUMUP_HOURS = 2 * 3600


def script(world: World, case: Case) -> Script:
    """What this buyer does, of what can be done at the provider whose page it is."""
    choice = _AT[doors.provider_of(case.session)]
    weights = [weight * (20 if one.__name__ == world.habits.often else 1) for one, weight in choice]
    chosen = world.rng.choices([one for one, _ in choice], weights)[0]
    world.coverage.note(f"script at {doors.provider_of(case.session)}", chosen.__name__)
    return chosen


# --- Cards and banks ------------------------------------------------------------------------------------


def _pays(world: World, case: Case) -> Steps:
    card = world.rng.choices(_CARDS, (85, 6, 6, 3))[0]
    which = {} if doors.provider_of(case.session) == "sumup" else {"card": card}
    if world.at_provider(case.session, "pay", **which):
        yield from open_doors(world, case, world.rng.randint(0, 4))


def _pays_twice_told(world: World, case: Case) -> Steps:
    """A refused card first."""
    world.at_provider(case.session, "decline")
    yield from open_doors(world, case, world.rng.randint(0, 2))
    yield from _pays(world, case)


def _pays_later(world: World, case: Case) -> Steps:
    """A bank debit, whose word comes later, or never while we watch."""
    if not world.at_provider(case.session, "pay_later"):
        return
    yield from open_doors(world, case, world.rng.randint(0, 3))
    yield Wait(world.rng.randint(1, 60))
    end = world.rng.choices(("complete_later", "fail_later", "cancel", "nothing"), (50, 25, 10, 15))[0]
    if end != "nothing":
        world.at_provider(case.session, end)
    yield from open_doors(world, case, world.rng.randint(0, 3))


def _leaves(world: World, case: Case) -> Steps:
    """Closes the tab; the session ends by itself."""
    yield Wait(world.rng.randint(1, 60))
    if world.rng.random() < 0.15:
        world.tell("the session's time passes")
        world.advance(2500)
    yield from open_doors(world, case, world.rng.randint(0, 2))


def _expires(world: World, case: Case) -> Steps:
    """The session is ended in the dashboard."""
    world.at_provider(case.session, "expire")
    yield from open_doors(world, case, world.rng.randint(0, 3))


def _cancels(world: World, case: Case) -> Steps:
    """Presses the order page's button; sometimes the card went through at that moment."""
    if world.rng.random() < 0.2:
        world.at_provider(case.session, "pay")
    yield Act("cancel", partial(cancel, case))
    yield from open_doors(world, case, 1)


def _comes_back_unpaid(world: World, case: Case) -> Steps:
    world.coverage.note("door", "cancel")
    yield Act("cancel page", partial(doors.cancel_page, case.code, case.secret))
    yield from _pays(world, case)


def _pays_late(world: World, case: Case) -> Steps:
    """The money comes after the session was closed, here and there."""
    if world.rng.random() < 0.5:
        yield Act("cancel", partial(cancel, case))
    else:
        world.at_provider(case.session, "expire")
    yield from open_doors(world, case, 1)
    yield Wait(world.rng.randint(1, 40))
    world.at_provider(case.session, "pay", force=True)
    yield from open_doors(world, case, world.rng.randint(0, 3))


_BEFORE = {
    "stripe": (("pay",), ("expire",), ("pay_later",), ("pay_later", "fail_later")),
    "sumup": (("pay",), ("expire",), ("decline",), ("decline", "pay")),
}


def _is_tampered(world: World, case: Case) -> Steps:
    """What the provider says is not what we asked for, before or after the payment."""
    if world.rng.random() < 0.5:
        for do in world.rng.choice(_BEFORE[doors.provider_of(case.session)]):
            world.at_provider(case.session, do)
        if world.rng.random() < 0.7:
            yield from surely(world, case, "recheck")
    world.tamper(case.session)
    yield from open_doors(world, case, world.rng.randint(1, 2))
    if world.rng.random() < 0.6:
        yield Wait(world.rng.randint(1, 30))
        world.mend(case.session)
        yield from open_doors(world, case, 1)
        if world.rng.random() < 0.6:
            yield from _pays(world, case)


# --- At SumUp, whose page shows a button back at most ---------------------------------------------------


def _never_returns(world: World, case: Case) -> Steps:
    """Pays and closes the tab: what is found out comes by the sweep or the doorbell."""
    world.at_provider(case.session, "pay")
    yield Wait(world.rng.randint(1, 30))


def _returns_too_soon(world: World, case: Case) -> Steps:
    """Is back while the checkout is PENDING, and pays then."""
    world.coverage.note("door", "success")
    yield from surely(world, case, "success")
    yield from _pays(world, case)


def _fails_twice(world: World, case: Case) -> Steps:
    """Two cards are refused, and Kassa may see it; the third one pays."""
    for _ in range(2):
        world.at_provider(case.session, "decline")
        yield from open_doors(world, case, world.rng.randint(0, 2))
    yield Wait(world.rng.randint(1, 10))
    yield from _pays(world, case)


def _pays_at_the_last_moment(world: World, case: Case) -> Steps:
    """Kassa reads that nobody has paid, and is about to close the checkout: then somebody pays."""
    if world.rng.random() < 0.5:
        world.at_provider(case.session, "decline")
    world.planned[("sumup close:before", case.session)] = "pay"
    if world.rng.random() < 0.4:
        world.tell("the checkout's time passes")
        world.advance(_SUMUP_HOURS + 60)
        yield from surely(world, case, "recheck")
    else:
        yield Act("cancel", partial(cancel, case))
    world.planned.pop(("sumup close:before", case.session), None)
    yield from open_doors(world, case, 1)


def _pays_after_failing(world: World, case: Case) -> Steps:
    """A card is refused, Kassa closes the checkout as failed, and SumUp takes the money all the same."""
    world.at_provider(case.session, "decline")
    yield Act("cancel", partial(cancel, case))
    yield from open_doors(world, case, 1)
    world.at_provider(case.session, "pay", force=True)
    yield from open_doors(world, case, world.rng.randint(0, 2))


_AT: dict[str, tuple[tuple[Script, int], ...]] = {
    "stripe": (
        (_pays, 42),
        (_pays_twice_told, 9),
        (_pays_later, 12),
        (_leaves, 10),
        (_expires, 4),
        (_cancels, 8),
        (_comes_back_unpaid, 4),
        (_pays_late, 6),
        (_is_tampered, 5),
    ),
    "sumup": (
        (_pays, 25),
        (_never_returns, 15),
        (_returns_too_soon, 8),
        (_fails_twice, 12),
        (_leaves, 8),
        (_expires, 4),
        (_cancels, 6),
        (_pays_late, 6),
        (_pays_at_the_last_moment, 8),
        (_pays_after_failing, 6),
        (_is_tampered, 6),
    ),
}
SUMUP_SCRIPTS = tuple(one.__name__ for one, _ in _AT["sumup"])
