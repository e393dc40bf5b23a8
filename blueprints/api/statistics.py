"""What is measured of payments, for admins."""

from __future__ import annotations

from pydantic import Field

from blueprints.api.endpoint import Area
from blueprints.api.errors import Problem
from blueprints.api.shapes import Answer, Choice, Currency, Day, Query, example
from domain.office import statistics
from domain.office.statistics import Step
from domain.security.scopes import Scope

area = Area("statistics", "Statistics", "For admins: how payments go, how long they take, what they earn.")


class StatisticsQuery(Query):
    """Which time, and of what."""

    since: Day | None = Field(None, description="Its first day; 30 days before the last one, if left out.")
    until: Day | None = Field(None, description="Its last day; today, if left out.")
    step: Choice[Step] = Field(Step.DAY, description="How revenue is summed up.")
    event: str | None = Field(None, max_length=200, description="A tournament’s or event’s slug.")


class OfMethod(Answer):
    """The payments that were begun in one way in that time, by how they ended."""

    method: str = Field(description="What was paid with, where the provider tells, else what was chosen.")
    paid: int
    failed: int
    expired: int
    cancelled: int
    waiting: int
    success_rate: float | None = Field(description="Of those that came to an end, the share that was paid.")
    median_seconds: float | None = Field(description="From begin to paid.")
    p95_seconds: float | None


class OfReason(Answer):
    """Payments that failed for one reason."""

    reason: str
    method: str
    count: int


class OfEvent(Answer):
    """What one tournament or event took in one step of time."""

    begins: Day | None
    event: str
    slug: str = Field(description="Its slug; empty for all those that are not named by themselves.")
    currency: Currency
    payments: int
    taken_minor: int
    back_minor: int = Field(description="What of it went back since.")


class Measured(Answer):
    """Everything that is measured of payments in a time."""

    since: Day
    until: Day
    step: Step
    methods: list[OfMethod]
    failures: list[OfReason]
    revenue: list[OfEvent]

    model_config = example(
        {
            "since": "2026-01-01",
            "until": "2026-01-30",
            "step": "day",
            "methods": [
                {
                    "method": "kaspi_qr",
                    "paid": 41,
                    "failed": 1,
                    "expired": 3,
                    "cancelled": 0,
                    "waiting": 2,
                    "success_rate": 0.9111,
                    "median_seconds": 38.2,
                    "p95_seconds": 141.0,
                }
            ],
            "failures": [{"reason": "no_funds", "method": "card", "count": 2}],
            "revenue": [
                {
                    "begins": "2026-01-15",
                    "event": "Harbour Open",
                    "slug": "harbour-open",
                    "currency": "KZT",
                    "payments": 41,
                    "taken_minor": 20500000,
                    "back_minor": 500000,
                }
            ],
        }
    )


@area.get(
    "/payments/admin/statistics",
    scope=Scope.ADMIN_STATISTICS,
    answers=Measured,
    problems=(
        Problem(400, "span", "The first day is after the last one."),
        Problem(404, "no_event", "There is no event at this address."),
    ),
)
def payment_statistics(query: StatisticsQuery) -> Measured:
    """How payments went: success by method, time to completion, failures by reason, revenue by event."""
    since, until = (str(day) if day is not None else "" for day in (query.since, query.until))
    asked = statistics.span(since, until, query.step, query.event or "")
    told = statistics.as_dict(statistics.read(asked))
    return Measured(
        since=asked.first,
        until=asked.last,
        step=asked.step,
        methods=[OfMethod(**one) for one in told["methods"]],
        failures=[OfReason(**one) for one in told["failures"]],
        revenue=[OfEvent(**one) for one in told["revenue"]],
    )
