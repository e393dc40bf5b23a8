"""Rendering of what Kassa writes outside of web pages: mails and documents. Plain Jinja, without Flask."""

from __future__ import annotations

from datetime import datetime
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

from babel.dates import format_datetime
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

import config
from domain import addresses, codes, money, names


@lru_cache(maxsize=1024)
def when(moment: datetime, timezone: str = "UTC", pattern: str = "EEEE d MMMM y, HH:mm") -> str:
    """A time as a reader there says it: `Friday 4 December 2026, 19:30`."""
    return format_datetime(moment.astimezone(ZoneInfo(timezone)), pattern, locale="en")


def place_of(timezone: str) -> str:
    """The part of a time zone's name that a reader knows: `Jersey` of Europe/Jersey, `UTC` of UTC."""
    return timezone.rsplit("/", 1)[-1].replace("_", " ")


@cache
def environment() -> Environment:
    """The templates, with what is inserted escaped in `.html` and left as it is in `.txt`.

    A name that a template misspells is an error, never an empty place in a mail.
    """
    made = Environment(
        loader=FileSystemLoader(config.ROOT / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"money": money.show, "when": when, "place": place_of, "code": codes.show}
    made.filters |= {"address": addresses.shown, "unlinked": names.unlinked, "printed": names.printed}
    return made


def render(template: str, /, **context: object) -> str:
    """A template of `templates/`, with the settings at hand as `settings`."""
    return environment().get_template(template).render(settings=config.get(), **context)
