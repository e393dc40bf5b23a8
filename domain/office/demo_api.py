"""What somebody needs who tries the API in development: a key, entries without their fee, calls to paste."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from urllib.parse import urlsplit

import config
from domain import clock, money
from domain.errors import DomainError
from domain.office import demo
from domain.orders import entries, entry_payments
from domain.people import accounts, athletes
from domain.security import api_keys, scopes
from extensions import db
from models import Event, Participant, ParticipantState, TicketType, User

_KEY = "flask demo api"
_KEY_DAYS = 30
# Names of athletes are tried one after the other, until one is found that has not been entered and paid for.
_MOST_ATHLETES = 100


@dataclass(frozen=True)
class Ready:
    """A key, which is told this once, and an unpaid entry in each category that has a fee."""

    key: str
    member: str
    tournament: Event
    entries: list[Participant]


def prepare() -> Ready:
    """Make the demo as far as it is missing, a new key of its buyer's, and entries to be paid. Commits.

    The key that was made before ends. DomainError outside development, or where the buyer is gone.
    """
    demo.seed()
    buyer, tournament = accounts.find("buyer@example.org"), demo.tournament()
    if buyer is None or tournament is None:
        raise DomainError(
            "demo_gone", "The demo's buyer or tournament is gone: start with an empty database."
        )
    for key in api_keys.living(buyer):
        if key.name == _KEY:
            api_keys.revoke(buyer, key.public_id)
    own = [scope.value for scope in scopes.of_role(buyer.role)]
    _, text = api_keys.make(buyer, _KEY, own, _KEY_DAYS)
    db.session.commit()
    kinds = [kind for kind in tournament.ticket_types if kind.price_minor and kind.available > 0]
    return Ready(text, buyer.email, tournament, [_entry(kind, buyer) for kind in kinds])


def _entry(kind: TicketType, buyer: User) -> Participant:
    """An entry that waits for its fee."""
    limits = kind.category
    age = (limits.min_age if limits is not None else None) or 20
    known = {athlete.name: athlete for athlete in athletes.of(buyer)}
    for number in range(1, _MOST_ATHLETES):
        name = f"Api Athlete {age}-{number}"
        values = {"name": name, "birth_date": date(clock.now().year - age - 1, 3, 1), "club": "Porto Dojo"}
        athlete = known.get(name) or athletes.add(buyer, values)
        try:
            made = entries.enter(kind, athlete, buyer, consent=athletes.consent_hash(), begun=False)
        except DomainError as error:
            if error.code != "already_entered":
                raise
            continue
        if made.state is ParticipantState.PENDING:
            return made
    raise DomainError("demo_full", f"{kind.name} is full of the demo's athletes.")


def lines(ready: Ready) -> list[str]:
    """What the command prints: ids, and calls that a shell runs as they stand."""
    base = config.get().public_url
    sandbox = urlsplit(config.get().stripe_api_base)
    told = [
        f"# A key of {ready.member}, for 30 days; the one that was made before has ended.",
        f"KASSA={base}/api/v1",
        f"KEY={ready.key}",
        *([f"SANDBOX={sandbox.scheme}://{sandbox.netloc}/control"] if sandbox.netloc else []),
        "",
        f"# Tournament {ready.tournament.slug}: its categories",
        *(f"#   {_category(kind)}" for kind in ready.tournament.ticket_types),
        "# Entries that wait for their fee",
        *(f"#   {one.public_id}  {one.athlete.name}, {one.ticket_type.name}" for one in ready.entries),
        "",
        _curl("tournaments"),
        _curl(f"tournaments/{ready.tournament.slug}/categories"),
        _curl("athletes"),
        _curl("participants"),
        _curl("payments/health"),
    ]
    for one in ready.entries:
        told += [
            "",
            f"# {one.ticket_type.name}: begin, pay in the sandbox, look",
            *_pays(one, sandbox.netloc),
        ]
    return told


def _category(kind: TicketType) -> str:
    fee = money.show(kind.price_minor, kind.priced_in) if kind.price_minor else "free"
    name = kind.category.public_id if kind.category is not None else "-"
    return f"{name}  {kind.name}, {fee}, {kind.available} left"


def _pays(one: Participant, sandbox: str) -> list[str]:
    """Beginning to pay an entry's fee, paying it where a sandbox stands for the provider, and its status."""
    kind = one.ticket_type
    method = (entry_payments.methods(kind) or ["card"])[0]
    amount = money.plain(kind.price_minor, kind.priced_in)
    body = (
        f'{{"participant_id": "{one.public_id}", "method": "{method}", "amount": {amount}, '
        f'"currency": "{kind.priced_in}"}}'
    )
    return [
        _curl("payments/initiate", f" -H 'Content-Type: application/json' -d '{body}'"),
        *(_IN_THE_SANDBOX if sandbox else ()),
        _curl(f"payments/status/{one.public_id}"),
        _curl(f"payments/participant/{one.public_id}/history"),
    ]


# The payment that was opened last there is paid, by whatever provider it is of.
_IN_THE_SANDBOX = (
    """NEWEST=$(curl -s "$SANDBOX/payments?limit=1" | """
    """python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')""",
    """curl -s "$SANDBOX/payments/$NEWEST" -H 'Content-Type: application/json' """
    """-d '{"do": "pay"}' > /dev/null""",
)


def _curl(path: str, more: str = "") -> str:
    return f'curl -s "$KASSA/{path}" -H "Authorization: Bearer $KEY"{more}'
