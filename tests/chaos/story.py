"""The story: many purchases while everything that can break does, and what must be true afterwards."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import redis
import requests

from domain.payments import reconciling
from tests.chaos.instance import Instance, Killer, as_json

PATIENCE = 300.0
_ORDER = re.compile(r"ORD-[A-Z0-9]{8}")
# What an event is sold by, and in which currency: ten of it each.
PROVIDERS = {"stripe": "EUR", "sumup": "EUR", "kaspi": "KZT"}
# An order that has come so far is not paid any more by whoever stands before its page.
_OVER = ("completed", "failed", "expired", "cancelled", "requires_manual_review")


@dataclass
class Outcome:
    """What happened, for whoever reads the report. `problems` is empty when all held."""

    purchases: int
    paid: int = 0
    # Of those that are paid, by provider.
    by: dict[str, int] = field(default_factory=dict)
    unpaid: int = 0
    killed: dict[str, int] = field(default_factory=dict)
    mails: int = 0
    copies: int = 0
    healed_after: float = 0.0
    problems: list[str] = field(default_factory=list)


def run(
    instance: Instance,
    *,
    purchases: int,
    redis_down: float,
    outage: float,
    seed: int,
    buyers: int = 8,
    hurry: bool = False,
) -> Outcome:
    """Buy `purchases` times under fire, let it heal, and compare the provider's books with the goods.

    `redis_down` and `outage` are how many seconds Redis is stopped and the provider answers 500. `hurry`
    moves the clock past the leases that dead processes have left, instead of waiting for their end.
    """
    outcome, pages = Outcome(purchases), dict[str, str]()
    _events(instance, purchases)
    killer = Killer(instance, seed, (3.0, 8.0))
    trouble = [
        threading.Thread(target=killer.run),
        threading.Thread(target=_trouble, args=(instance, redis_down, outage)),
    ]
    for thread in trouble:
        thread.start()
    try:
        with ThreadPoolExecutor(buyers) as pool:
            list(
                pool.map(
                    lambda n: _buy(instance, n, random.Random(seed * 10_000 + n), pages), range(purchases)
                )
            )
        trouble[1].join()
    finally:
        killer.stopped = True
        trouble[0].join()
    outcome.killed = dict(Counter(killer.killed))
    if hurry:
        instance.control("clock", {"advance_seconds": reconciling.LEASE.total_seconds()})
    _heal(instance, outcome, pages)
    _compare(instance, outcome, pages)
    return outcome


def _events(instance: Instance, capacity: int) -> None:
    """One for each provider: the buyers take turns."""
    for provider, currency in PROVIDERS.items():
        arguments = ["--slug", f"chaos-{provider}", "--capacity", str(capacity * 2), "--price-minor", "1000"]
        made = instance.flask("demo", "event", *arguments, "--currency", currency, "--provider", provider)
        if made.returncode:
            raise RuntimeError(made.stdout + made.stderr)


def _trouble(instance: Instance, redis_down: float, outage: float) -> None:
    """Redis is flushed, then stopped; all providers fail for a while."""
    time.sleep(3)
    redis.Redis.from_url(instance.env()["REDIS_URL"]).flushall()
    instance.hold("redis", down=True)
    instance.kill("redis")
    time.sleep(redis_down)
    instance.hold("redis", down=False)
    instance.control("faults", {"seed": 1, "rate": 1, "kinds": ["http_500"]})
    time.sleep(outage)
    instance.control("faults", {})


def _buy(instance: Instance, number: int, dice: random.Random, pages: dict[str, str]) -> None:
    """One buyer, who tries again as people do, pays (most of them), and comes back (half of them).

    `pages` keeps the order's page by its code, where the buyer has seen it.
    """
    # People arrive over a while, so that there are some whatever breaks.
    time.sleep(dice.uniform(1, 3))
    browser = requests.Session()
    page = f"{instance.door(number)}/events/chaos-{list(PROVIDERS)[number % len(PROVIDERS)]}"
    html = _patiently(browser, "GET", page).text
    fields = dict(re.findall(r'name="(csrf_token|form_token)" value="([^"]+)"', html))
    quantity = re.search(r'name="(quantity-\d+)"', html)
    if quantity is None:
        raise RuntimeError("The event's page has no form.")
    fields |= {
        "name": f"Buyer {number}",
        "email": f"buyer{number}@example.org",
        quantity[1]: str(dice.choice([1, 1, 2])),
    }
    answer = _patiently(browser, "POST", page, data=fields)
    session = _session_of(instance, browser, answer, pages)
    if session is None or dice.random() < 0.1:
        return
    if session["provider"] == "stripe" and number % 4 == 0:
        _by_wallet(instance, browser, session, comes_back=dice.random() < 0.5)
        return
    try:
        instance.control(f"payments/{session['id']}", {"do": "pay"})
    except requests.HTTPError as error:
        if error.response is None or error.response.status_code != 409:
            raise
        # A code that has ended meanwhile is paid by nobody.
        return
    if dice.random() < 0.5:
        _patiently(browser, "GET", session["success_url"] or pages[_code(session)])


def _by_wallet(
    instance: Instance, browser: requests.Session, session: dict[str, Any], *, comes_back: bool
) -> None:
    """The same order by a wallet's button on our own page: the session is closed, and an intent opened."""
    order = _page(session)
    html = _patiently(browser, "GET", order).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', html)
    fields = {"csrf_token": token[1] if token else "", "provider": "stripe", "method": "apple_pay"}
    where = _patiently(browser, "POST", f"{order}/pay", data=fields).headers.get("Location", "")
    ends = time.monotonic() + PATIENCE
    while f"{instance.web}/pay/wallet/" not in where and time.monotonic() < ends:
        time.sleep(1)
        html = _patiently(browser, "GET", order).text
        link = re.search(rf'href="({re.escape(instance.web)}/pay/wallet/[^"]+)"', html)
        where = link[1] if link else ""
    reference = where.removeprefix(f"{instance.web}/pay/wallet/").partition("/")[0]
    known = instance.control("payments")
    intent = next((one for one in known if reference and one["reference"] == reference), None)
    if intent is None:
        # The session was paid, or is not closed yet: there is nothing else to pay.
        return
    instance.control(f"payments/{intent['id']}", {"do": "pay", "wallet": "apple_pay"})
    if comes_back:
        _patiently(browser, "GET", f"{where}/done?payment_intent={intent['id']}")


def _session_of(
    instance: Instance, browser: requests.Session, answer: requests.Response, pages: dict[str, str]
) -> dict[str, Any] | None:
    """The provider's session that the buyer is sent to; from the order page, where it took a while.

    None where there is none, and where the order is over, or a person's: a create whose answer was lost is
    not made again by everybody.
    """
    ends = time.monotonic() + PATIENCE
    where = answer.headers.get("Location", "")
    while time.monotonic() < ends:
        if where.startswith(instance.sandbox):
            wanted = where.rsplit("/", 1)[-1]
            found = instance.control(f"payments/{wanted}")
            return dict(found)
        if not where:
            return None
        page = where if where.startswith("http") else instance.web + where
        html = _patiently(browser, "GET", page).text
        pages |= {code[0]: page for code in [_ORDER.search(page)] if code is not None}
        if _ORDER.search(page) and _state_at(browser, page) in _OVER:
            return None
        link = re.search(rf'href="({re.escape(instance.sandbox)}[^"]+)"', html)
        where = link[1] if link else where
        time.sleep(0 if link else 1)
    return None


def _state_at(browser: requests.Session, page: str) -> str:
    answer = _patiently(browser, "GET", f"{page}.json")
    return str(answer.json().get("state", "")) if answer.ok else ""


def _patiently(browser: requests.Session, method: str, url: str, **more: Any) -> requests.Response:
    """Ask again while nobody answers, or the answer is that something went wrong."""
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            answer = browser.request(method, url, timeout=15, allow_redirects=False, **more)
            if answer.status_code < 500:
                return answer
        except requests.RequestException:
            answer = None
        if time.monotonic() > ends:
            raise RuntimeError(f"{method} {url} found no answer: {answer}")
        time.sleep(0.3)


# --- Afterwards -----------------------------------------------------------------------------------------


def _heal(instance: Instance, outcome: Outcome, pages: dict[str, str]) -> None:
    """Wait until nothing is owed any more, with no help but the sweeps that run by themselves."""
    began = time.monotonic()
    while time.monotonic() - began < 240:
        paid = [p for p in _payments(instance) if p["status"] == "paid"]
        mailed, status = _ticket_mails(instance), _statuses(instance, pages)
        if all(_code(p) in mailed and status(p).get("state") == "completed" for p in paid):
            break
        time.sleep(2)
    outcome.healed_after = round(time.monotonic() - began, 1)


def _payments(instance: Instance) -> list[dict[str, Any]]:
    return list(instance.control("payments?limit=10000"))


def _code(payment: dict[str, Any]) -> str:
    """The order's code, which the payment's reference begins with."""
    return str(payment["reference"]).rsplit("-", 1)[0]


def _page(payment: dict[str, Any]) -> str:
    """The order's page, whose address is in the provider's success address; "" where there is none."""
    return str(payment["success_url"] or "").split("?")[0].replace("/pay/success/", "/o/")


def _statuses(instance: Instance, seen: dict[str, str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What gives the JSON of a payment's order: its page is known by a session, or was seen by its buyer."""
    pages = {_code(payment): _page(payment) for payment in _payments(instance) if payment["success_url"]}
    pages |= seen

    def status(payment: dict[str, Any]) -> dict[str, Any]:
        answer = _patiently(requests.Session(), "GET", f"{pages[_code(payment)]}.json")
        return dict(answer.json()) if answer.ok else {}

    return status


def _ticket_mails(instance: Instance) -> dict[str, list[str]]:
    """Order code -> the Message-IDs of the mails that brought its tickets."""
    found: dict[str, list[str]] = {}
    for mail in instance.control("mail?limit=10000"):
        code = _ORDER.search(mail["subject"])
        if code and any(part["name"].endswith(".pdf") for part in mail["attachments"]):
            found.setdefault(code[0], []).append(mail["message_id"])
    return found


def _compare(instance: Instance, outcome: Outcome, pages: dict[str, str]) -> None:
    mails, status = _ticket_mails(instance), _statuses(instance, pages)
    orders: Counter[str] = Counter()
    for payment in _payments(instance):
        if payment["status"] != "paid":
            outcome.unpaid += 1
            continue
        outcome.paid += 1
        outcome.by[payment["provider"]] = outcome.by.get(payment["provider"], 0) + 1
        told = status(payment)
        code = _code(payment)
        orders[code] += 1
        if told.get("state") != "completed":
            outcome.problems.append(f"{code} is paid at the provider and {told.get('state')} here")
        elif len(told["tickets"]) * 1000 != payment["amount_minor"]:
            outcome.problems.append(
                f"{code} has {len(told['tickets'])} tickets for {payment['amount_minor']}"
            )
        ids = mails.pop(code, [])
        outcome.mails += bool(ids)
        outcome.copies += max(0, len(ids) - 1)
        if len(set(ids)) != 1:
            outcome.problems.append(f"{code} got {len(ids)} mails with {len(set(ids))} Message-IDs")
    outcome.problems += [f"{code} was paid {n} times" for code, n in orders.items() if n > 1]
    seeded = ("rui@", "joao@", "amara@", "mara@")
    strangers = [
        m for m in instance.control("mail?limit=10000") if not str(m["to"]).startswith(("buyer", *seeded))
    ]
    outcome.problems += [
        f"tickets mailed to {m['to']}: {m['subject']}" for m in strangers if m["attachments"]
    ]
    outcome.problems += [
        f"{finding['code']}: {finding['words']}"
        for finding in as_json(instance.flask("doctor", "--json"))["findings"]
        if finding["code"].startswith("invariant") and finding["state"] != "ok"
    ]
