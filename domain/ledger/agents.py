"""Agents: small services that members pay for by use. Each runs here, on the text it is given.

A use takes the price with a hold, runs the service, and captures; a service that cannot do it voids the hold.
Services are pure: the same text gives the same result, which is why a repeated use can show it again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import segno
import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

import config
from domain import addresses, audit, money, spreadsheets
from domain.catalogue import prices
from domain.errors import DomainError, NotFound
from domain.ledger import wallet
from extensions import db
from models import Agent, AuditArea, Deed, HoldState, User, WalletHold

log = structlog.get_logger(__name__)


class ServiceRefused(DomainError):
    """The service cannot use what it was given; its words say what to change. Nothing is paid."""


@dataclass(frozen=True)
class File:
    """A file to keep."""

    name: str
    content_type: str
    data: bytes

    @property
    def data_uri(self) -> str:
        return f"data:{self.content_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Result:
    """What a service made: text to read, files to keep, and one of them to show where it is a picture."""

    text: str
    files: tuple[File, ...] = ()
    picture: File | None = None


@dataclass(frozen=True)
class Service:
    """A built-in service: what its form asks for, and the function that answers."""

    run: Callable[[str], Result]
    label: str
    example: str
    max_length: int = 5000
    rows: int = 8


@dataclass(frozen=True)
class Use:
    """One paid use of an agent. `repeated` when it had been paid before, by the same form."""

    result: Result
    repeated: bool = field(default=False)


# --- The services ---------------------------------------------------------------------------------------


def _qr_code(text: str) -> Result:
    """A QR code as a picture for the web and as a drawing for print."""
    code = segno.make(text, error="m", micro=False)
    drawing, picture = io.BytesIO(), io.BytesIO()
    code.save(drawing, kind="svg", border=4, scale=10, xmldecl=True)
    code.save(picture, kind="png", border=4, scale=max(4, 1000 // (code.symbol_size()[0] + 8)))
    png = File("qr-code.png", "image/png", picture.getvalue())
    svg = File("qr-code.svg", "image/svg+xml", drawing.getvalue())
    return Result(f"Leads to: {text}", (svg, png), png)


_ADDRESS = re.compile(r"[^\s<>,;\"']+@[^\s<>,;\"']+")


def _guest_list(text: str) -> Result:
    """One row for each person, sorted by name, from addresses as mail programs and chats have them."""
    people: dict[str, str] = {}
    strange: list[str] = []
    for part in re.split(r"[\n;,]+", text):
        line = part.strip()
        if not line:
            continue
        found = _ADDRESS.search(line) if len(line) <= 320 else None
        try:
            address = addresses.normal(found[0] if found else "")
        except DomainError:
            strange.append(line[:200])
            continue
        name = " ".join(line.replace(found[0] if found else "", " ").translate(_BRACKETS).split())
        people[address] = people.get(address) or name
    if not people:
        raise ServiceRefused("nothing_found", "There is no e-mail address in that. Paste one person a line.")
    written = [(addresses.shown(address), name) for address, name in people.items()]
    rows = sorted(written, key=lambda row: (row[1].casefold(), row[0]))
    words = [f"{len(rows)} {'person' if len(rows) == 1 else 'people'}, each once.", ""]
    words += [f"{name or '(no name)'} <{address}>" for address, name in rows]
    if strange:
        words += ["", f"Without a usable address ({len(strange)}):", *strange]
    file = spreadsheets.as_csv(("name", "email"), ((name, address) for address, name in rows))
    return Result("\n".join(words), (File("guest-list.csv", "text/csv", file),))


_BRACKETS = str.maketrans(dict.fromkeys('<>"()[]', " "))


_START = re.compile(r"\s*([01]?\d|2[0-3])[:.]([0-5]\d)\s*")
_ITEM = re.compile(r"\s*(\d{1,3})\s*(?:min(?:utes?)?\b\.?|m\b|')?\s*[-:,]?\s*(\S.*)")


def _running_order(text: str) -> Result:
    """Clock times for an evening, from the time it starts and the minutes that each part takes."""
    lines = [line for line in text.splitlines() if line.strip()]
    start = _START.fullmatch(lines[0]) if lines else None
    if start is None:
        raise ServiceRefused("no_start", "The first line must be the time it starts, such as 19:30.")
    if len(lines) < 2:
        raise ServiceRefused("no_parts", "Add a line for each part: its minutes, then its name.")
    at = begins = timedelta(hours=int(start[1]), minutes=int(start[2]))
    rows = []
    for line in lines[1:]:
        item = _ITEM.fullmatch(line)
        if item is None or int(item[1]) == 0:
            raise ServiceRefused(
                "no_minutes",
                f"“{line.strip()[:60]}” does not begin with minutes, such as “20 Doors open”.",
            )
        ends = at + timedelta(minutes=int(item[1]))
        rows.append(f"{_clock(at)}–{_clock(ends)}  {item[2].strip()} ({item[1]} min)")
        at = ends
    minutes = int((at - begins).total_seconds()) // 60
    rows.append(f"{_clock(at)}        End, after {minutes // 60} h {minutes % 60:02d} min")
    words = "\n".join(rows)
    return Result(words, (File("running-order.txt", "text/plain; charset=utf-8", words.encode()),))


def _clock(at: timedelta) -> str:
    minutes = int(at.total_seconds()) // 60
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


SERVICES: dict[str, Service] = {
    "qr_code": Service(
        _qr_code,
        "The link or text that the code should hold",
        "https://example.org/events/opening-night",
        max_length=500,
        rows=2,
    ),
    "guest_list": Service(
        _guest_list,
        "Names and addresses, pasted as you have them",
        "Ada Fields <ada@example.org>, bruno@example.org\nCarla Nunes carla@example.org",
        max_length=20000,
    ),
    "running_order": Service(
        _running_order,
        "The time it starts, then a line for each part: minutes and name",
        "19:30\n30 Doors open\n45 First set\n20 Interval\n60 Second set",
    ),
}

# What a new Kassa offers: slug, name, description, price in whole units of the wallet's currency, service.
DEFAULTS = (
    (
        "qr-code",
        "QR code",
        "A code for a poster or a flyer, sharp at any size: a drawing for print and a picture for the web.",
        1,
        "qr_code",
    ),
    (
        "guest-list",
        "Guest list",
        "Paste addresses from mails and chats; get each person once, sorted, checked, as a spreadsheet.",
        2,
        "guest_list",
    ),
    (
        "running-order",
        "Running order",
        "The minutes of each part become clock times for the whole evening, ready for the stage door.",
        2,
        "running_order",
    ),
)


# --- Catalogue and use ----------------------------------------------------------------------------------


def seed() -> None:
    """Add the default agents that are not there yet. Commits."""
    currency = config.get().wallet_currency
    scale = 10 ** money.decimals(currency)
    made = db.session.execute(
        insert(Agent)
        .values(
            [
                {
                    "slug": slug,
                    "name": name,
                    "description": description,
                    "price_minor": price * scale,
                    "currency": currency,
                    "service": service,
                    "active": True,
                }
                for slug, name, description, price, service in DEFAULTS
            ]
        )
        .on_conflict_do_nothing()
        .returning(Agent.id, Agent.name)
    )
    for agent_id, name in made.all():
        audit.note(AuditArea.SETTING, Deed.MADE, "agent", agent_id, label=name)
    db.session.commit()


def catalogue() -> list[Agent]:
    """The agents that can be used now, by name."""
    query = select(Agent).where(Agent.active, Agent.service.in_(SERVICES)).order_by(Agent.name)
    return list(db.session.scalars(query))


def save(
    agent: Agent | None, *, slug: str, name: str, price_minor: int, currency: str, **values: Any
) -> Agent:
    """Make an agent, or change one. Commits; DomainError in words.

    `values` may hold description, service and active.
    """
    slug, name = slug.strip(), name.strip()
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        raise DomainError("slug", "The address may have small letters, digits and single hyphens: qr-code.")
    other = db.session.scalar(select(Agent).filter_by(slug=slug))
    if other is not None and other is not agent:
        raise DomainError("slug", "Another agent has this address already. Choose a different one.")
    if price_minor <= 0:
        raise DomainError("price_minor", "The price must be above zero.")
    if agent is None:
        agent = Agent(description="", active=True)
        db.session.add(agent)
    agent.slug, agent.name, agent.price_minor, agent.currency = slug, name, price_minor, currency
    for column in ("description", "service", "active"):
        if column in values:
            setattr(agent, column, values[column])
    db.session.commit()
    return agent


def find(slug: str) -> Agent:
    """An agent that can be used now. NotFound for any other."""
    agent = db.session.scalar(select(Agent).where(Agent.slug == slug, Agent.active))
    if agent is None or agent.service not in SERVICES:
        raise NotFound("no_agent", "There is no such service here. Choose another one from the list.")
    return agent


def use(user: User, agent: Agent, text: str, *, token: str, shown: str | None = None) -> Use:
    """Pay for one use of an agent and run it. Commits.

    The same `token` with the same text is the same use: it is paid once, and its result is shown again.
    `shown` is the price that the form carries, as `prices` has it; None where no form is behind it. When
    anything fails the money is given back, and the error's words say so: ServiceRefused, InsufficientFunds,
    PriceChanged.
    """
    service = SERVICES[agent.service]
    text = _clean(text, service)
    # A form that is sent again after the price has changed is still the use that was paid for.
    price = shown or prices.tag(agent.price_minor, agent.currency)
    said = f"{user.id}|{agent.slug}|{price}|{token}|{text}"
    key = f"agent:{hashlib.sha256(said.encode()).hexdigest()}"
    held = wallet.captured(key) or _hold(user, agent, key, shown)
    repeated = held.state is HoldState.CAPTURED
    try:
        result = _run(service, text, agent.slug)
        held = wallet.capture(held)
    except DomainError:
        wallet.void(held)
        raise
    if held.state is not HoldState.CAPTURED:
        raise DomainError("use_ended", "That try was ended without a charge. Send the form again.")
    return Use(result, repeated)


def _hold(user: User, agent: Agent, key: str, shown: str | None) -> WalletHold:
    """Keep the price for one use, where it is the price that was shown. Commits."""
    prices.check_one(agent.price_minor, agent.currency, shown, at_once=True)
    return wallet.hold(
        user,
        agent.price_minor,
        key=key,
        description=agent.name,
        agent_slug=agent.slug,
        currency=agent.currency,
    )


def _clean(text: str, service: Service) -> str:
    text = text.replace("\r\n", "\n").replace("\x00", "").strip()
    if not text:
        raise ServiceRefused("nothing_given", "Fill in the field first. Nothing was taken.")
    if len(text) > service.max_length:
        raise ServiceRefused(
            "too_long", f"That is too long: use at most {service.max_length} characters. Nothing was taken."
        )
    return text


def _run(service: Service, text: str, slug: str) -> Result:
    """The service's answer. What it stumbles over becomes words: a fault of ours is not paid for either."""
    try:
        return service.run(text)
    except DomainError as error:
        raise ServiceRefused(error.code, f"{error.message} Nothing was taken.") from error
    except Exception as error:
        log.exception("agent_failed", agent=slug)
        raise DomainError(
            "service_failed",
            "The service failed, and nothing was taken. Try again, or write to "
            f"{config.get().support_email} with what you typed.",
        ) from error
