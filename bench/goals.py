"""What is measured, in the order of the table: each with its goal, and what the strongest peer needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# What is short of its goal by more than this is mended, or explained in docs/decisions.md.
TOLERATED = 1.5
# Calls a second that one account of SumUp's may get; docs/operating.md, SUMUP_RATE_PER_SECOND.
SUMUP_RATE = 5


class Better(StrEnum):
    """Which way a measure should go."""

    LESS = "less"
    MORE = "more"


@dataclass(frozen=True)
class Measure:
    """One line of the table. `goal` is None for what is only told; `peer` is pretix 2026.8.0's number."""

    work: str
    name: str
    unit: str
    goal: float | None = None
    better: Better = Better.LESS
    peer: str = ""


_LESS, _MORE = Better.LESS, Better.MORE
_PAGE = "event page, 3 ticket types, 8 connections"
_BUY = "one purchase over HTTP, with PDF and mail, 8 at once"
_SETTLE = "order and settle, no HTTP, no mail"
_RUSH = "buyers for half as many tickets, all at once"
_SWEEP = "sweep of pending Stripe sessions"
_SUMUP = "sweep of pending SumUp payments over many accounts"
_REST = "sweep with nothing due"
_MILLION = "a shop of 1,000,000 orders"
_PDF = "tickets' PDF"
_DOOR = "check-in over HTTP"
_WEB = "web process"
_SILENCE = "open pages that ask about payments of a silent provider"
_API = "a program's request"
_RINGS = "rings of paid payments, 200 a second for 30 seconds"
_CROWD = "strangers who are silent, or send or read a byte at a time"

MEASURES: dict[str, Measure] = {
    "yardstick": Measure("this machine", "a bare Flask page with one ORM query (0.9 when idle)", "ms"),
    "page.per_second": Measure(_PAGE, "pages", "1/s", None, _MORE, "46"),
    "page.cpu": Measure(_PAGE, "CPU a page", "ms", 1.3, _LESS, "40"),
    "page.queries": Measure(_PAGE, "queries a page", "", 3, _LESS, "10"),
    "page.kilobytes": Measure(_PAGE, "size", "KB", None, _LESS, "21"),
    # 110 with a picture, which is kept at about 64.
    "page.first_visit": Measure(_PAGE, "a phone's first visit, but for a picture", "KB", 46),
    "page.p99": Measure(_PAGE, "p99", "ms"),
    "buy.per_second": Measure(_BUY, "orders, mails out", "1/s", None, _MORE, "2.5"),
    "buy.cpu": Measure(_BUY, "CPU an order", "ms", 50, _LESS, "734 to 806"),
    "buy.queries": Measure(_BUY, "queries an order, with its mails", "", 30, _LESS, "310"),
    "buy.queries_web": Measure(_BUY, "of these in its requests", ""),
    "buy.queries_ten": Measure(_BUY, "queries, ten tickets", ""),
    "buy.requests": Measure(_BUY, "requests an order", "", 4, _LESS, "11"),
    "buy.rings": Measure(_BUY, "webhooks an order", ""),
    "settle.one": Measure(_SETTLE, "on one connection", "1/s", 200, _MORE, "12"),
    "settle.eight": Measure(_SETTLE, "on eight connections", "1/s", 400, _MORE),
    "settle.cpu": Measure(_SETTLE, "CPU an order, one connection", "ms", 4, _LESS, "61"),
    "settle.cpu_eight": Measure(_SETTLE, "CPU an order, eight", "ms"),
    "settle.queries": Measure(_SETTLE, "queries", "", 12, _LESS, "67"),
    "settle.queries_ten": Measure(_SETTLE, "queries, ten tickets", "", 12),
    "rush.buyers": Measure(_RUSH, "buyers", ""),
    "rush.oversold": Measure(_RUSH, "sold beyond the capacity", "", 0, _LESS, "1 in 2 of 9 runs"),
    "rush.sold": Measure(_RUSH, "sold", ""),
    "rush.answered": Measure(_RUSH, "until all know whether they have one", "s"),
    "rush.wall": Measure(_RUSH, "until all have paid and see their ticket", "s", 5, _LESS, "83 to 117"),
    "sweep.payments": Measure(_SWEEP, "payments", ""),
    "sweep.wall": Measure(_SWEEP, "time", "s", 60),
    "sweep.calls": Measure(_SWEEP, "provider calls", "", 110),
    "sweep.cpu": Measure(_SWEEP, "CPU a payment", "ms"),
    "sumup.payments": Measure(_SUMUP, "payments", ""),
    "sumup.accounts": Measure(_SUMUP, "accounts", ""),
    "sumup.wall": Measure(_SUMUP, "time", "s", 60),
    "sumup.calls": Measure(_SUMUP, "provider calls a payment", "", 1),
    "sumup.busiest": Measure(_SUMUP, "most calls to one account, mean of any 3 s", "1/s", SUMUP_RATE),
    "sumup.cpu": Measure(_SUMUP, "CPU a payment", "ms"),
    "rest.small": Measure(_REST, "small table", "ms"),
    "rest.million": Measure(_REST, "1,000,000 payments at rest", "ms"),
    "million.pages": Measure(_MILLION, "pages, with each of their filters", ""),
    "million.pages_late": Measure(_MILLION, "of these with a p95 above 100 ms", "", 0),
    "million.slowest": Measure(_MILLION, "p95 of the slowest page", "ms", 100),
    "million.dashboard": Measure(_MILLION, "p95 of the office's first page", "ms", 100),
    "million.search": Measure(_MILLION, "p95 of a search for an order", "ms", 100),
    "million.metrics": Measure(_MILLION, "p95 of `/metrics`", "ms", 100),
    "million.healthz": Measure(_MILLION, "p95 of `/healthz`", "ms", 100),
    "million.first_byte": Measure(_MILLION, "first byte of files and long lists, the slowest", "ms", 1000),
    "million.grown": Measure(_MILLION, "memory that a file takes, the most", "MB", 50),
    "million.checks": Measure(_MILLION, "checks after a change of 1,000 orders", "ms", 100),
    "million.expired": Measure(_MILLION, "digest of what expired", "ms", 100),
    "million.untold": Measure(_MILLION, "the same where none was ever sent", "ms", 100),
    "million.mail": Measure(_MILLION, "what a mail that does not leave asks", "ms", 100),
    "million.whole": Measure(_MILLION, "the night's check, one run of its job a minute", "s", 600),
    "million.whole_work": Measure(_MILLION, "the same, its work alone", "s"),
    "million.slower": Measure(_MILLION, "fewer purchases a second beside it", "%", 10),
    "pdf.one": Measure(_PDF, "CPU, one ticket", "ms", 20, _LESS, "75"),
    "pdf.one_kilobytes": Measure(_PDF, "size, one ticket", "KB", 12, _LESS, "61"),
    "pdf.ten": Measure(_PDF, "CPU a ticket, ten in one order", "ms", 15, _LESS, "67"),
    "pdf.ten_kilobytes": Measure(_PDF, "size, ten tickets", "KB", 30, _LESS, "606"),
    "door.per_second": Measure(_DOOR, "scans, 8 scanners", "1/s", None, _MORE, "22 to 35"),
    "door.cpu": Measure(_DOOR, "CPU a scan", "ms", 3, _LESS, "52"),
    "door.queries": Measure(_DOOR, "queries a scan", "", 4, _LESS, "27"),
    "door.p99": Measure(_DOOR, "p99, one scanner", "ms", 10, _LESS, "69"),
    "api.initiate": Measure(_API, "CPU to begin a payment", "ms", 6),
    "api.initiate_queries": Measure(_API, "queries to begin a payment", ""),
    "api.status": Measure(_API, "CPU of the status of a final payment", "ms", 1.5),
    "api.status_queries": Measure(_API, "queries of the status of a final payment", ""),
    "api.check_in": Measure(_API, "CPU of a check-in by key", "ms", 3),
    "api.check_in_queries": Measure(_API, "queries of a check-in by key", ""),
    "rings.per_second": Measure(_RINGS, "answered", "1/s", 200, _MORE),
    "rings.lost": Measure(_RINGS, "lost", "", 0),
    "rings.refused": Measure(_RINGS, "asked to come again", ""),
    "rings.cpu": Measure(_RINGS, "CPU a ring", "ms"),
    "strangers.connections": Measure(_CROWD, "connections", ""),
    "strangers.p99": Measure(_CROWD, "`/livez` meanwhile, p99", "ms", 1000),
    "strangers.failed": Measure(_CROWD, "`/livez` without an answer", "", 0),
    "strangers.bought": Measure(_CROWD, "purchases completed meanwhile", "", 1, _MORE),
    "strangers.cpu": Measure(_CROWD, "CPU of web, each second", "ms"),
    "silence.pages": Measure(_SILENCE, "pages", ""),
    "silence.p99": Measure(_SILENCE, "`/livez` meanwhile, p99", "ms"),
    "silence.longest": Measure(_SILENCE, "`/livez` meanwhile, longest", "ms", 500),
    "web.start": Measure(_WEB, "start to first page", "s", 1, _LESS, "3.5"),
    "web.memory": Measure(_WEB, "memory of 2 workers, shared pages once", "MB", 200, _LESS, "497"),
    "web.memory_rss": Measure(_WEB, "the same, shared pages for each", "MB"),
}


def short_by(measure: Measure, value: float) -> float | None:
    """By which factor `value` misses the goal: 1 or less is reached, None is without a goal."""
    if measure.goal is None:
        return None
    if measure.better is Better.MORE:
        return measure.goal / value if value else float("inf")
    return value / measure.goal if measure.goal else 1.0 + value
