"""Time zones as people say them, and times as they are typed, which a clock may show twice, or never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import get_timezone_location

import config
from domain.errors import DomainError

# An event outside of these is a slip of the keyboard.
FIRST_YEAR, LAST_YEAR = 2020, 2100
# Which of the two is meant where the clocks go back.
FIRST, SECOND = "first", "second"


class ComesTwice(DomainError):
    """A time that the clocks show twice, and nobody said which is meant."""


@cache
def listed() -> tuple[tuple[str, str], ...]:
    """The zones to choose from, each with its name for people: `Germany: Berlin`, `Jersey`, `UTC`.

    Those that the zone database lists by country: neither aliases nor such as `localtime` and `Factory`.
    """
    table = files("tzdata.zoneinfo").joinpath("zone.tab").read_text()
    rows = [line.split("\t") for line in table.splitlines() if line and not line.startswith("#")]
    named = sorted((_said(row[0], row[2]), row[2]) for row in rows)
    return ("UTC", "UTC"), *((zone, said) for said, zone in named)


def _said(country: str, zone: str) -> str:
    land = Locale("en").territories.get(country, "")
    city = get_timezone_location(zone, locale="en", return_city=True).rpartition("/")[2]
    return city if not land or city == land else f"{land}: {city}"


def check(name: str) -> None:
    """Refuse what is not a time zone. DomainError `timezone`, in words."""
    if not config.is_timezone(name):
        raise DomainError(
            "timezone", f"“{name[:64]}” is not a time zone. Choose one from the list, such as Europe/Jersey."
        )


def moment(typed: datetime, zone: str, *, field: str, which: str = "") -> datetime:
    """A time as a clock in `zone` shows it, in UTC. `which` is FIRST or SECOND where it comes twice.

    DomainError `timezone`, or with `field` as its code: for a time that there is not, and a year that nobody
    means; ComesTwice where `which` does not say.
    """
    check(zone)
    if not FIRST_YEAR <= typed.year <= LAST_YEAR:
        raise DomainError(field, f"Choose a date between {FIRST_YEAR} and {LAST_YEAR}.")
    first, second = _both(typed, zone)
    if first == second:
        return first
    if first > second:
        raise DomainError(field, _never(typed, zone, first - second))
    if which not in (FIRST, SECOND):
        raise ComesTwice(field, _twice(typed))
    return first if which == FIRST else second


def which(moments: list[datetime | None], zone: str) -> str:
    """FIRST or SECOND for stored times of which the clock shows some twice; "" for none, or some of each."""
    found = set()
    for stored in filter(None, moments):
        local = stored.astimezone(ZoneInfo(zone))
        first, second = _both(local.replace(tzinfo=None), zone)
        if first < second:
            found.add(SECOND if local.fold else FIRST)
    return found.pop() if len(found) == 1 else ""


def moved(stored: datetime, before: str, after: str) -> datetime:
    """The same time on the clocks of another zone: 20:00 stays 20:00. Where it is skipped, a bit later."""
    local = stored.astimezone(ZoneInfo(before)).replace(tzinfo=None)
    return local.replace(tzinfo=ZoneInfo(after)).astimezone(UTC)


def _both(typed: datetime, zone: str) -> tuple[datetime, datetime]:
    """What a clock's time means in UTC, before and after a change of the clocks: mostly the same."""
    here = ZoneInfo(zone)
    first, second = (typed.replace(tzinfo=here, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first, second


def _never(typed: datetime, zone: str, gap: timedelta) -> str:
    return (
        f"There is no {typed:%H:%M} on that day in {zone}: the clocks go forward by "
        f"{int(gap.total_seconds()) // 60} minutes. Choose a time before or after."
    )


def _twice(typed: datetime) -> str:
    return f"{typed:%H:%M} comes twice on that day, because the clocks go back. Say below which it is."
