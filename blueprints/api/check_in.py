"""Check-in by a program: the same scan as a phone's at the door."""

from __future__ import annotations

from uuid import uuid4

from pydantic import Field

from blueprints.api.caller import caller
from blueprints.api.endpoint import Area
from blueprints.api.errors import Problem
from blueprints.api.shapes import Answer, Body, Moment, example
from domain.door import check_in as door
from domain.door import staff
from domain.security.scopes import Scope
from models import Verdict

area = Area("check-in", "Check-in", "Let tickets and entries in at a door that is yours.")


class CodeShown(Body):
    """What was shown at the door."""

    model_config = example({"event": "opening-night", "code": "7KQ2 M4XP", "scan_id": "turnstile-3-000017"})

    event: str = Field(
        min_length=1, max_length=200, description="Whose door it is: the last part of its page's address."
    )
    code: str = Field(
        min_length=1, max_length=door.MAX_TEXT, description="The QR code's text, or the ticket's 8 signs."
    )
    scan_id: str | None = Field(
        default=None,
        pattern="^[A-Za-z0-9-]{8,40}$",
        description="A name of your own for this scan: sent again, it repeats the verdict.",
    )


class Scanned(Answer):
    """The verdict on a scan. Only `valid` lets anybody in."""

    scan_id: str = Field(examples=["turnstile-3-000017"])
    verdict: Verdict
    words: str = Field(description="For whoever stands at the door.", examples=["Welcome."])
    holder: str = Field(description="Empty where the ticket is not of this door.", examples=["Ada Fields"])
    type: str = Field(examples=["Standing"])
    at: Moment | None = Field(description="When it was let in: now, or before.")
    by: str = Field(description="Who let it in.", examples=["Box office server"])
    rest: int = Field(description="How many more of the same order wait to be let in.", examples=[1])
    admitted: int = Field(description="How many of the event's tickets are in.", examples=[118])
    total: int = Field(description="How many tickets there are, without void ones.", examples=[240])


@area.post(
    "/check-in",
    scope=Scope.TICKETS_CHECK_IN,
    answers=Scanned,
    problems=(
        Problem(404, "no_event", "There is no such event."),
        Problem(403, "not_your_door", "This door is not for this account."),
        Problem(409, "busy", "That ticket is being scanned somewhere else. Scan it again.", lasting=False),
        Problem(400, "scan_id_reused", "This scan's id was used for another code."),
        Problem(400, "scan_undone", "This scan was undone. Scan the ticket again."),
    ),
)
def check_in(body: CodeShown) -> Scanned:
    """Check a ticket in.

    A code that is not valid is an answer too, with its verdict: used, void, wrong_event, forged or unknown.
    """
    who = caller()
    keeper = staff.by_user(who.user, body.event, by=who.key.name if who.key is not None else "")
    result = door.scan(keeper, body.scan_id or str(uuid4()), body.code)
    return Scanned(
        scan_id=result.scan_id,
        verdict=result.verdict,
        words=result.words,
        holder=result.holder,
        type=result.type,
        at=result.at,
        by=result.by,
        rest=result.rest,
        admitted=result.count.admitted,
        total=result.count.total,
    )
