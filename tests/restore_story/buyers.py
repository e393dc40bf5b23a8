"""Who is in the shop: buyers of all that it sells, through all its providers, and what becomes of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tests.restore_story.shops import MEMBER, ORGANISER, Answer, Gone, Shop

PRICE = 1000
# What is bought, and through which provider. Each comes round as often as the others.
KINDS = (
    ("tickets", "stripe"),
    ("tickets", "sumup"),
    ("tickets", "kaspi"),
    ("top_up", "stripe"),
    ("tickets", "stripe"),
    ("entry", "kaspi"),
    ("top_up", "sumup"),
    ("entry", "stripe"),
    ("listing", "stripe"),
)
# Of an event for each, in a currency that it takes.
CURRENCY = {"stripe": "EUR", "sumup": "EUR", "kaspi": "KZT"}
METHOD = {"stripe": "card", "kaspi": "kaspi_qr"}
_ORDER = re.compile(r"ORD-[A-Z0-9]{8}")


@dataclass
class Purchase:
    """One of them. `session` is what the provider calls the payment, and `code` the order."""

    number: int
    what: str
    provider: str
    email: str = ""
    quantity: int = 1
    code: str = ""
    session: str = ""
    reference: str = ""
    back: str = ""
    paid: bool = False


@dataclass
class Wares:
    """What is on sale: the draft events whose fees can be paid yet, and categories by currency."""

    drafts: list[str]
    categories: dict[str, dict[str, Any]]


def begin(shop: Shop, wares: Wares, number: int) -> Purchase:
    """Order, and come as far as the provider's page. Gone where the shop is lost meanwhile."""
    what, provider = KINDS[number % len(KINDS)]
    if what == "listing" and not wares.drafts:
        what = "tickets"
    made = Purchase(number, what, provider)
    answer = _BEGINS[what](shop, wares, made)
    made.code, made.session, made.reference, made.back = _opened(shop, answer)
    return made


def pay(shop: Shop, made: Purchase) -> None:
    """As the buyer does it at the provider."""
    shop.control(f"payments/{made.session}", {"do": "pay"})
    made.paid = True


def come_back(shop: Shop, made: Purchase) -> None:
    """To where the provider leads, or to the order's page, which asks the provider."""
    shop.browser().get(made.back)


def _tickets(shop: Shop, wares: Wares, made: Purchase) -> Answer:
    made.email, made.quantity = f"buyer{made.number}@example.org", 1 + made.number % 2
    page, browser = f"/events/story-{made.provider}", shop.browser()
    kind = re.search(r'name="(quantity-\d+)"', browser.get(page).text)
    assert kind is not None, "the event is not on sale"
    return browser.post(page, name=f"Buyer {made.number}", email=made.email, **{kind[1]: str(made.quantity)})


def _top_up(shop: Shop, wares: Wares, made: Purchase) -> Answer:
    made.email = MEMBER
    browser = shop.member(MEMBER)
    html = browser.get("/wallet/topup/").text
    amount = re.search(r'name="amount" value="(\d+)"', html)
    assert amount is not None, html
    return browser.post("/wallet/topup/", amount=amount[1], provider=made.provider)


def _entry(shop: Shop, wares: Wares, made: Purchase) -> Answer:
    """By a program, from the athlete to the payment."""
    made.email = MEMBER
    program = shop.program(MEMBER)
    body = {"name": f"Athlete {made.number}", "birth_date": "1995-05-31"}
    athlete = _ok(program.call("POST", "/athletes", body))
    category = wares.categories[CURRENCY[made.provider]]
    body = {"category_id": category["category_id"], "athlete_id": athlete["athlete_id"]}
    entry = _ok(program.call("POST", "/participants", body))
    asked = {
        "participant_id": entry["participant_id"],
        "method": METHOD[made.provider],
        "amount": entry["amount"],
        "currency": entry["currency"],
    }
    answer = program.call("POST", "/payments/initiate", asked, key=f"story-{made.number}")
    _ok(answer)
    return Answer(answer.status, answer.text, answer.json["payment_url"], answer.json)


def _listing(shop: Shop, wares: Wares, made: Purchase) -> Answer:
    made.email = ORGANISER
    slug = wares.drafts.pop()
    return shop.member(ORGANISER).post(f"/organiser/events/{slug}/publish", provider=made.provider)


_BEGINS = {"tickets": _tickets, "top_up": _top_up, "entry": _entry, "listing": _listing}


def _ok(answer: Answer) -> dict[str, Any]:
    assert answer.status in (200, 201), answer.text
    return dict(answer.json)


def _opened(shop: Shop, answer: Answer) -> tuple[str, str, str, str]:
    """The order's code, the session, its reference, and the page to come back to."""
    where = answer.location
    assert where, f"{answer.status} {answer.text[:2000]}"
    code = _ORDER.search(where)
    if code is None:
        session = where.rstrip("/").rsplit("/", 1)[-1].partition("?")[0]
        found = dict(shop.control(f"payments/{session}"))
    else:
        shop.browser().get(where)
        known = shop.control("payments?limit=10000")
        found = next(one for one in known if str(one["reference"]).startswith(code[0]))
    back = str(found["success_url"] or where)
    reference = str(found["reference"])
    return reference.rsplit("-", 1)[0], str(found["id"]), reference, back


def quietly(shop: Shop, wares: Wares, number: int) -> Purchase | None:
    """The same; None where the shop was lost in the midst of it."""
    try:
        return begin(shop, wares, number)
    except Gone:
        return None
