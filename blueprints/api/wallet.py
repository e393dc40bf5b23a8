"""A member's wallet, and paying for an agent's work from it."""

from __future__ import annotations

import secrets
from base64 import b64encode

from flask import request
from pydantic import Field

from blueprints.api import cursors
from blueprints.api.caller import caller
from blueprints.api.endpoint import Area
from blueprints.api.errors import ApiProblem, Problem
from blueprints.api.shapes import (
    Amount,
    Answer,
    Body,
    Currency,
    Id,
    Moment,
    Money,
    Page,
    PageQuery,
    example,
    in_minor,
    sums,
)
from domain.catalogue.prices import PriceChanged, tag
from domain.ledger import agents, wallet
from domain.ledger.transfers import InsufficientFunds
from domain.security.scopes import Scope

area = Area("wallet", "Wallet", "One’s money with the house, and the agents that are paid from it.")


class Purse(Answer):
    """One’s money in one currency. `amount` is what can be spent now."""

    amount: Money
    amount_minor: int
    currency: Currency
    balance_minor: int
    held_minor: int = Field(description="Kept for what is under way.")


class WalletShape(Answer):
    """One’s money, a purse for each currency."""

    items: list[Purse]


class Entry(Answer):
    """A transfer: what came in is positive, what went out negative."""

    transaction_id: Id
    at: Moment
    kind: str
    description: str
    amount: Money
    amount_minor: int
    currency: Currency


class EntryPage(Page):
    """Some transfers, the newest first."""

    items: list[Entry]


class Usage(Body):
    """What an agent is to do."""

    agent: str = Field(max_length=100, description="The agent’s slug.")
    text: str = Field(max_length=20_000, description="What it works on.")
    amount: Amount | None = Field(None, description="Its price, so that another one is not paid unseen.")

    model_config = example({"agent": "qr-code", "text": "https://example.org", "amount": 0.50})


class MadeFile(Answer):
    """A file that the agent made."""

    name: str
    content_type: str
    data: str = Field(description="Base64.")


class Used(Answer):
    """What the agent made of it."""

    agent: str
    text: str
    files: list[MadeFile]
    amount: Money
    amount_minor: int
    currency: Currency


@area.get("/wallet", scope=Scope.WALLET_READ, answers=WalletShape)
def get_wallet() -> WalletShape:
    """One’s wallet."""
    purses = wallet.purses(caller().user)
    return WalletShape(
        items=[
            Purse(
                **sums(one.available_minor, one.currency),
                balance_minor=one.balance_minor,
                held_minor=one.held_minor,
            )
            for one in purses
        ]
    )


@area.get("/wallet/transactions", scope=Scope.WALLET_READ, answers=EntryPage)
def list_transactions(query: PageQuery) -> EntryPage:
    """List what came into one’s wallet, and what went out."""
    found = wallet.history(caller().user, before_id=cursors.read("transactions", query.cursor))
    return EntryPage(
        items=[
            Entry(
                transaction_id=cursors.write("transaction", one.id) or "",
                at=one.at,
                kind=one.kind,
                description=one.description,
                **sums(one.amount_minor, one.currency),
            )
            for one in found.entries
        ],
        next=cursors.write("transactions", found.older_than),
    )


@area.post(
    "/wallet/usage",
    scope=Scope.WALLET_USAGE,
    answers=Used,
    problems=(
        Problem(404, "no_agent", "There is no such agent."),
        Problem(402, "insufficient_funds", "There is not enough money in the wallet.", lasting=False),
        Problem(409, "price_changed", "The price has changed.", lasting=False),
        Problem(409, "use_ended", "That try was ended without a charge. Send it again."),
        Problem(400, "too_precise", "EUR amounts have at most 2 digits after the point."),
        Problem(400, "nothing_given", "Fill in the field first. Nothing was taken."),
        Problem(400, "too_long", "That is too long. Nothing was taken."),
        Problem(400, "nothing_found", "There is no address in that text. Nothing was taken."),
        Problem(400, "no_start", "There is no time at which it begins. Nothing was taken."),
        Problem(400, "no_parts", "There is no part in it. Nothing was taken."),
        Problem(400, "no_minutes", "A line says no minutes. Nothing was taken."),
        Problem(503, "service_failed", "The service failed, and nothing was taken.", lasting=False),
    ),
    limit="60 per minute",
)
def use_agent(body: Usage) -> Used:
    """Pay an agent from one’s wallet, and have its work.

    It is paid when it has worked. The same `Idempotency-Key` with the same text is the same use, paid once.
    """
    found = agents.find(body.agent)
    price = found.price_minor if body.amount is None else in_minor(body.amount, found.currency)
    token = request.headers.get("Idempotency-Key") or secrets.token_hex()
    try:
        use = agents.use(caller().user, found, body.text, token=token, shown=tag(price, found.currency))
    except InsufficientFunds as error:
        raise ApiProblem(402, "insufficient_funds", error.message) from error
    except PriceChanged as error:
        raise ApiProblem(409, error.code, error.message) from error
    return _used(body.agent, use, price, found.currency)


def _used(slug: str, use: agents.Use, price: int, currency: str) -> Used:
    files = [
        MadeFile(name=one.name, content_type=one.content_type, data=b64encode(one.data).decode())
        for one in use.result.files
    ]
    return Used(agent=slug, text=use.result.text, files=files, **sums(price, currency))
