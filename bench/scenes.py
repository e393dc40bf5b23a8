"""What is measured, one function each: it does the work and returns numbers by the keys of `bench.goals`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from bench.client import PATIENCE_SECONDS, Browser, Dashboard, at_once, percentile, until
from bench.inside import Inside
from bench.machine import Cost, Machine
from bench.report import Results

CONNECTIONS = 8
# How gunicorn is started: two processes of four threads.
_PROCESSES = 2
_DRAIN_SECONDS = 120
_LED_ON_SECONDS = 20
# Webhooks that are still on their way when the last mail has left.
_QUIET_SECONDS = 1.0
_BUYER = {"name": "Ada Buyer", "email": "ada@example.org"}


@dataclass(frozen=True)
class Sizes:
    """How much of each work is done."""

    page_seconds: float
    purchases: int
    settled: int
    buyers: int
    sessions: int
    merchants: int
    checkouts: int
    pdfs: int
    scans: int


FULL = Sizes(
    page_seconds=10,
    purchases=200,
    settled=1000,
    buyers=400,
    sessions=10_000,
    merchants=50,
    checkouts=5000,
    pdfs=30,
    scans=400,
)
QUICK = Sizes(
    page_seconds=0.5,
    purchases=8,
    settled=16,
    buyers=16,
    sessions=150,
    merchants=3,
    checkouts=24,
    pdfs=2,
    scans=20,
)


@dataclass
class Stage:
    """What the scenes work with."""

    machine: Machine
    insides: list[Inside]
    sizes: Sizes
    # What explains the numbers: who spent the CPU, the plan of a query.
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def inside(self) -> Inside:
        return self.insides[0]

    def cpu(self, work: str, cost: Cost, number: int) -> float:
        """CPU milliseconds of one of `number` works; what each server's part is goes into the details."""
        parts = {name: round(spent / number * 1000, 2) for name, spent in cost.by_server.items()}
        self.details[f"CPU ms by server, {work}"] = {name: spent for name, spent in parts.items() if spent}
        return cost.cpu / number * 1000

    def browser(self, patience: float = PATIENCE_SECONDS) -> Browser:
        return Browser(self.machine.port, patience)

    def dashboard(self) -> Dashboard:
        return Dashboard(self.machine.instance.sandbox_port)


# --- Without HTTP ---------------------------------------------------------------------------------------


def count_queries(stage: Stage) -> Results:
    """The queries of everything, in a pass of their own."""
    port = stage.machine.instance.sandbox_port
    counted: Results = stage.inside.do("count", slug="inside", three_kinds="page", sandbox_port=port)
    stage.inside.do("forget_mail")
    return counted


def yardstick(stage: Stage) -> Results:
    """How fast the machine is just now: what else it does costs CPU time too, by emptying its caches."""
    return {"yardstick": stage.inside.do("yardstick", slug="inside", times=50 * stage.sizes.pdfs)}


def settle(stage: Stage) -> Results:
    """Orders placed and settled with a report made on the spot: on one connection, then on eight."""
    number, machine = stage.sizes.settled, stage.machine
    for inside in stage.insides:
        inside.do("settle", slug="inside", orders=8, threads=CONNECTIONS // _PROCESSES)
    with machine.measured() as one:
        wall_one = stage.inside.do("settle", slug="inside", orders=number, threads=1)
    with machine.measured() as eight:
        for inside in stage.insides:
            inside.begin(
                "settle", slug="inside", orders=number // _PROCESSES, threads=CONNECTIONS // _PROCESSES
            )
        wall_eight = max(inside.result() for inside in stage.insides)
    stage.inside.do("forget_mail")
    return {
        "settle.one": number / wall_one,
        "settle.eight": number / wall_eight,
        "settle.cpu": stage.cpu("settle on one connection", one, number),
        "settle.cpu_eight": stage.cpu("settle on eight connections", eight, number),
    }


def pdfs(stage: Stage) -> Results:
    """The PDF of an order of one ticket, and of ten."""
    one = stage.inside.do("pdf", slug="inside", quantity=1, times=stage.sizes.pdfs)
    ten = stage.inside.do("pdf", slug="inside", quantity=10, times=max(1, stage.sizes.pdfs // 3))
    stage.inside.do("forget_mail")
    return {
        "pdf.one": one["cpu"] * 1000,
        "pdf.one_kilobytes": one["bytes"] / 1000,
        "pdf.ten": ten["cpu"] * 1000 / 10,
        "pdf.ten_kilobytes": ten["bytes"] / 1000,
    }


def sweep(stage: Stage) -> Results:
    """Sessions that nobody has paid, all due, in one sweep; then a sweep that finds nothing due."""
    number = stage.sizes.sessions
    stage.inside.do("put_to_rest")
    stage.inside.do("due_payments", sessions=_open_sessions(stage, number))
    began = time.time()
    with stage.machine.measured() as cost:
        run = stage.inside.do("sweep")
    expected = {"found": number, "pending": number, "errors": 0}
    assert {name: run[name] for name in expected} == expected, run
    calls = stage.dashboard().control(f"calls?since={began}")
    return {
        "sweep.payments": number,
        "sweep.wall": run["wall"],
        "sweep.calls": _about_payments(calls),
        "sweep.cpu": stage.cpu("a payment of the sweep", cost, number),
        "rest.small": _idle_sweep(stage),
    }


def _open_sessions(stage: Stage, number: int) -> list[dict[str, Any]]:
    """Checkout Sessions, opened through the sandbox's API."""
    expires_at = str(int(time.time()) + 23 * 3600)
    fields = {
        "mode": "payment",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "eur",
        "line_items[0][price_data][unit_amount]": "2500",
        "line_items[0][price_data][product_data][name]": "Concert: Standard",
        "adaptive_pricing[enabled]": "false",
        "success_url": "https://example.org/success",
        "expires_at": expires_at,
    }
    opened: list[dict[str, Any]] = []

    def some(numbers: Iterator[int]) -> None:
        dashboard = stage.dashboard()
        for position in numbers:
            reference = f"ORD-SWEEP{position}-1"
            session = dashboard.open_session(
                fields | {"client_reference_id": reference, "metadata[reference]": reference}
            )
            kept = ("id", "created", "client_reference_id", "url")
            opened.append({name: session[name] for name in kept})

    # The sandbox does one thing at a time; a second connection keeps it from waiting for us.
    at_once(2, range(number), some)
    return opened


def sumup_sweep(stage: Stage) -> Results:
    """Payments that nobody has paid, at the accounts of many organisers, all due, in one sweep."""
    number, accounts = stage.sizes.checkouts, stage.sizes.merchants
    merchants = stage.dashboard().control("merchants", {"count": accounts})
    stage.inside.do("connected", provider="sumup", merchants=merchants)
    opened = _open_checkouts(stage, merchants, number)
    stage.inside.do("put_to_rest")
    stage.inside.do("due_payments", sessions=opened)
    began = time.time()
    with stage.machine.measured() as cost:
        run = stage.inside.do("sweep")
    expected = {"found": number, "pending": number, "errors": 0}
    assert {name: run[name] for name in expected} == expected, run
    calls = stage.dashboard().control(f"calls?since={began}")
    return {
        "sumup.payments": number,
        "sumup.accounts": accounts,
        "sumup.wall": run["wall"],
        "sumup.calls": _about_payments(calls) / number,
        "sumup.busiest": _busiest(calls, {checkout["id"]: checkout["account"] for checkout in opened}),
        "sumup.cpu": stage.cpu("a payment of the sweep of many accounts", cost, number),
    }


def _open_checkouts(stage: Stage, merchants: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Checkouts, opened through the sandbox's API with the tokens of their merchants, in turn."""
    now = time.time()
    opened: list[dict[str, Any]] = []

    def some(numbers: Iterator[int]) -> None:
        dashboard = stage.dashboard()
        for position in numbers:
            merchant, reference = merchants[position % len(merchants)], f"ORD-SUMUP{position}-1"
            fields = {
                "checkout_reference": reference,
                "amount": 25.0,
                "currency": "EUR",
                "merchant_code": merchant["code"],
                "hosted_checkout": {"enabled": True},
            }
            checkout = dashboard.open_checkout(merchant["access_token"], fields)
            kept = {"id": checkout["id"], "url": checkout["hosted_checkout_url"], "created": now}
            whose = {"provider": "sumup", "account": merchant["code"], "client_reference_id": reference}
            opened.append(kept | whose)

    at_once(2, range(number), some)
    return opened


def _about_payments(calls: list[dict[str, Any]]) -> int:
    """The calls that read payments. What happened at the accounts is asked besides, whatever is due."""
    return sum("/checkout" in call["path"] for call in calls)


def _busiest(calls: list[dict[str, Any]], accounts: dict[str, str], seconds: float = 3.0) -> float:
    """The most calls a second that the checkouts of one account got, on average over any `seconds`.

    A rate is counted in the steps between calls: at five a second, sixteen calls are three seconds apart.
    """
    by_account: dict[str, list[float]] = {}
    for call in calls:
        account = accounts.get(call["path"].rpartition("/")[2])
        if account is not None:
            by_account.setdefault(account, []).append(call["time"])
    most = 0
    for times in by_account.values():
        times.sort()
        first = 0
        for last, moment in enumerate(times):
            while times[first] <= moment - seconds:
                first += 1
            most = max(most, last - first + 1)
    return max(0, most - 1) / seconds


def _idle_sweep(stage: Stage) -> float:
    """Milliseconds of a sweep that finds nothing due; the median of five."""
    stage.inside.do("put_to_rest")
    walls = sorted(stage.inside.do("sweep")["wall"] for _ in range(5))
    return float(walls[2] * 1000)


def at_rest(stage: Stage, number: int) -> Results:
    """What so many payments that are final cost a sweep."""
    stage.inside.do("payments_at_rest", number=number)
    stage.details["payments at rest"] = number
    stage.details["plan of what is due"] = stage.inside.do("explain").splitlines()
    return {"rest.million": _idle_sweep(stage)}


# --- Over HTTP ------------------------------------------------------------------------------------------


def start_web(stage: Stage) -> Results:
    """From the start of gunicorn to the first event page."""
    return {"web.start": stage.machine.start_web("/events/page")}


def event_page(stage: Stage) -> Results:
    """An event with three ticket types, asked for by eight visitors without a pause."""
    times: list[float] = []
    sizes: list[int] = []

    def visit(going: Iterator[int]) -> None:
        browser = stage.browser()
        for _ in going:
            began = time.perf_counter()
            answer = browser.get("/events/page")
            times.append(time.perf_counter() - began)
            assert answer.status == 200, answer.status
            sizes.append(len(answer.body))
        browser.close()

    at_once(CONNECTIONS, range(20 * CONNECTIONS), visit)
    times.clear()
    with stage.machine.measured() as cost:
        at_once(CONNECTIONS, until(stage.sizes.page_seconds), visit)
    return {
        "page.per_second": len(times) / cost.wall,
        "page.cpu": stage.cpu("event page", cost, len(times)),
        "page.kilobytes": sizes[0] / 1000,
        "page.first_visit": _first_visit(stage) / 1000,
        "page.p99": percentile(times, 0.99) * 1000,
    }


def _first_visit(stage: Stage) -> int:
    """Bytes that a phone gets for an event's page and all that it names, without headers."""
    browser = stage.browser()
    page = browser.get("/events/page")
    named = set(re.findall(r'(?:href|src)="(/(?:bootstrap/)?static/[^"]+)"', page.body.decode()))
    assert named, "The page names no stylesheet."
    parts = [browser.get(address, **{"Accept-Encoding": "gzip, br"}) for address in sorted(named)]
    assert {part.status for part in parts} == {200}
    return len(page.body) + sum(len(part.body) for part in parts)


def purchases(stage: Stage, type_id: int) -> Results:
    """People who buy one ticket each, eight at a time, until the last mail has left."""
    number = stage.sizes.purchases
    # The worker loads its fonts with the first ticket; web processes open their connections.
    _buy(stage, type_id, CONNECTIONS)
    drain(stage)
    rings = stage.inside.do("rings")
    with stage.machine.measured() as cost:
        requests = _buy(stage, type_id, number)
        drain(stage)
    return {
        "buy.per_second": number / (cost.wall - _QUIET_SECONDS),
        "buy.cpu": stage.cpu("purchase", cost, number),
        "buy.requests": requests / number,
        "buy.rings": (stage.inside.do("rings") - rings) / number,
    }


def _buy(stage: Stage, type_id: int, number: int) -> int:
    """So many purchases; how many requests they took."""
    requests = []

    def some(numbers: Iterator[int]) -> None:
        dashboard = stage.dashboard()
        for _ in numbers:
            browser = stage.browser()
            bought = _order(browser, "buy", type_id)
            assert bought, "There should be enough for everybody."
            _pay(browser, dashboard, bought)
            requests.append(browser.requests)
            browser.close()

    at_once(CONNECTIONS, range(number), some)
    return sum(requests)


def _order(browser: Browser, slug: str, type_id: int) -> str:
    """Fill in an event's form and send it: the provider's page, or "" for whoever comes too late."""
    address = f"/events/{slug}"
    page = browser.get(address)
    if b'name="form_token"' not in page.body:
        return ""
    tokens = {name: page.hidden(name) for name in ("csrf_token", "form_token")}
    answer = browser.post(address, tokens | _BUYER | {f"quantity-{type_id}": "1"})
    if answer.status == 409:
        return ""
    assert answer.status == 303, answer.status
    return answer.location if "/stripe/pay/" in answer.location else _led_on(browser, answer.location)


def _led_on(browser: Browser, address: str) -> str:
    """The provider's page, from the order's: whoever found no room there is shown it when there is."""
    for _ in until(_LED_ON_SECONDS):
        page = browser.get(address)
        found = re.search(rb'href="([^"]+/stripe/pay/[^"]+)"', page.body)
        if found is not None:
            return found[1].decode()
        time.sleep(0.5)
    raise AssertionError(f"{address} never led to the provider's page.")


def buy_one(stage: Stage, type_id: int) -> str:
    """One purchase; the address of its order page. OSError where a request is not answered in 10 seconds."""
    browser = stage.browser(10)
    try:
        return _pay(browser, stage.dashboard(), _order(browser, "buy", type_id))
    finally:
        browser.close()


def order_page(stage: Stage, type_id: int) -> str:
    """The address of the page of an order that is placed, and not paid."""
    browser = stage.browser()
    try:
        session = _order(browser, "buy", type_id).rpartition("/")[2]
    finally:
        browser.close()
    told = stage.dashboard().control(f"payments/{session}")
    code, secret = urlsplit(told["success_url"]).path.split("/")[-2:]
    return f"/o/{code}/{secret}"


def _pay(browser: Browser, dashboard: Dashboard, provider_page: str) -> str:
    """Pay at the provider, and come back to the order page with the ticket: its address."""
    paid = dashboard.pay(provider_page.rpartition("/")[2])
    back = browser.get(paid["success_url"])
    page = browser.get(back.location)
    assert page.status == 200 and b"data:image/png" in page.body, page.status
    return back.location


def drain(stage: Stage) -> None:
    """Wait until every mail has left, and then until it is quiet."""
    began = time.perf_counter()
    while stage.inside.do("mail_due"):
        if time.perf_counter() - began > _DRAIN_SECONDS:
            raise RuntimeError("The worker does not deliver the mails.")
        time.sleep(0.05)
    time.sleep(_QUIET_SECONDS)


def rush(stage: Stage, type_id: int) -> Results:
    """More buyers than tickets, each with a connection, all at the same moment."""
    buyers = stage.sizes.buyers
    starting = Barrier(buyers)
    answered: list[float] = []
    done: list[float] = []

    def one(number: int) -> None:
        browser, dashboard = stage.browser(), stage.dashboard()
        starting.wait()
        bought = _order(browser, "rush", type_id)
        answered.append(time.perf_counter())
        if bought:
            _pay(browser, dashboard, bought)
        done.append(time.perf_counter())
        browser.close()

    with ThreadPoolExecutor(buyers) as crowd:
        began = time.perf_counter()
        list(crowd.map(one, range(buyers)))
    stock = stage.inside.do("stock", type_id=type_id)
    assert len(done) == buyers, "A buyer was left without an answer."
    drain(stage)
    taken = max(stock["sold"] + stock["held"], stock["issued"])
    return {
        "rush.buyers": buyers,
        "rush.oversold": max(0, taken - stock["capacity"]),
        "rush.sold": stock["sold"],
        "rush.answered": max(answered) - began,
        "rush.wall": max(done) - began,
    }


def check_ins(stage: Stage) -> Results:
    """Tickets at a door: by one scanner, then by eight."""
    number = stage.sizes.scans
    texts = stage.inside.do("codes", slug="inside", orders=2 * number // 10, each=10)
    stage.inside.do("forget_mail")
    token, pin = stage.inside.do("door_pass", slug="inside")
    scanners = [_Scanner(stage.browser(), token, pin) for _ in range(CONNECTIONS)]
    first, rest = texts[:number], texts[number:]
    one = [scanners[0].scan(text) for text in first]
    waiting = list(scanners)

    def some(codes: Iterator[str]) -> None:
        scanner = waiting.pop()
        for text in codes:
            scanner.scan(text)

    with stage.machine.measured() as cost:
        at_once(CONNECTIONS, rest, some)
    return {
        "door.per_second": len(rest) / cost.wall,
        "door.cpu": stage.cpu("scan", cost, len(rest)),
        "door.p99": percentile(one, 0.99) * 1000,
    }


class _Scanner:
    """A phone at the door, past the PIN."""

    def __init__(self, browser: Browser, token: str, pin: str) -> None:
        self._browser, self._address = browser, f"/door/{token}"
        entry = browser.get(f"{self._address}/")
        entered = browser.post(
            f"{self._address}/enter",
            {"csrf_token": entry.hidden("csrf_token"), "pin": pin, "name": ""},
        )
        assert entered.status == 303, entered.status
        self._csrf = browser.get(f"{self._address}/").hidden("csrf_token")

    def scan(self, text: str) -> float:
        """Let one ticket in; seconds."""
        began = time.perf_counter()
        answer = self._browser.post_json(
            f"{self._address}/scan", {"scan_id": str(uuid4()), "text": text}, **{"X-CSRFToken": self._csrf}
        )
        took = time.perf_counter() - began
        assert answer.status == 200 and b'"valid"' in answer.body, answer.body[:200]
        return took


def memory(stage: Stage) -> Results:
    """What the web processes hold after all that."""
    shared_once, for_each = stage.machine.memory_of_web()
    return {"web.memory": shared_once, "web.memory_rss": for_each}
