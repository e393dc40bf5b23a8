"""What fate does: the clock, the weather between us and the providers, and what people do at the provider."""

from __future__ import annotations

from collections import Counter
from random import Random
from time import time
from typing import Any

from flask import Flask
from sqlalchemy import select

from extensions import db
from models import Payment
from tests.simulation import doors
from tests.simulation.coverage import Coverage
from tests.simulation.network import Network
from tests.simulation.story import Story
from tests.support.sandbox import Sandbox

# The parts of the providers' APIs that Kassa uses; the simulation's own reading of the books is never
# disturbed.
_API = "^/(stripe/v1/(checkout|payment_intents|refunds|disputes)|sumup/(v|token))"
_OPENS = {"stripe": "^/stripe/v1/checkout/sessions$", "sumup": "^/sumup/v0.1/checkouts$"}
_WEATHERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("timeout_before", {}),
    ("timeout_after", {}),
    ("timeout_after", {"match": {"method": "POST", "path": _API}}),
    ("http_500", {}),
    ("http_500", {"after": True}),
    ("http_500", {"stored": True}),
    ("http_429", {}),
    ("slow", {}),
    ("garbage", {}),
    ("garbage", {"after": True}),
    ("smtp_refuse", {}),
    ("smtp_drop_after_data", {}),
)
# How long a fault hangs, in real seconds: the connection is then closed, as when a wait is given up.
_HANGS = 0.005


class Fate(Story):
    """Everything that happens outside of Kassa, by the sandbox's /control."""

    def __init__(self, app: Flask, sandbox: Sandbox, seed: int) -> None:
        super().__init__(app, seed)
        self.sandbox = sandbox
        self.rng = Random(seed)
        self.network = Network(sandbox, Random(f"network {seed}"))
        self.coverage = Coverage()
        # What somebody changed in the provider's books, by session: what it was before.
        self.tampered: dict[str, dict[str, Any]] = {}
        self.ever_tampered: set[str] = set()
        # Sessions that were tampered with before they bought anything, and those that fate let be paid late.
        self.tampered_unpaid: set[str] = set()
        self.reopened: set[str] = set()
        # Sessions whose money a bank has taken back, and has not given its word on.
        self.disputed: list[str] = []
        # How often people gave the money of a SumUp checkout back in the dashboard.
        self.refunded_there: Counter[str] = Counter()
        # What is to happen at the provider at a certain point of Kassa's own work: (point, its id) -> what.
        self.planned: dict[tuple[str, str], str] = {}
        self._began = time()
        self._shift = 0.0
        self._fault = ""
        self._calm_sky = True

    def advance(self, seconds: float) -> None:
        """Move the clock of Kassa, and that of the sandbox, which reads this file.

        The real time that went by meanwhile is taken off, so that a slow machine lives the same hours.
        """
        self._offset += seconds
        passed = time() - self._began
        self._shift = max(self._offset - passed, self._shift)
        new = self.sandbox.home / "clock.simulation"
        new.write_text(f"{self._shift!r}\n")
        new.replace(self.sandbox.home / "clock")

    def jump(self) -> None:
        """Nobody does anything for a while."""
        low, high = self.rng.choices(
            ((60, 600), (600, 2400), (3600, 10_800), (80_000, 100_000)), (60, 25, 12, 3)
        )[0]
        seconds = self.rng.uniform(low, high)
        self.tell(f"{seconds / 60:.0f} minutes pass")
        self.advance(seconds)

    def weather(self) -> None:
        """Another fault, or a clear sky."""
        self.clear_sky()
        if self.rng.random() < 0.25:
            return
        kind, more = self.rng.choice(_WEATHERS)
        rule = {"seed": self.rng.randrange(1000), "rate": self.rng.choice((1.0, 0.6)), **more}
        rule |= {"times": self.rng.choice((1, 2, 3, 6)), "seconds": _HANGS}
        if not kind.startswith("smtp"):
            rule.setdefault("match", {"path": _API})
        self._fault = kind + "".join(f" {name}" for name in ("after", "stored") if more.get(name))
        self._calm_sky = False
        self.tell(f"weather: {self._fault} {rule['times']} times")
        self.sandbox.faults(kind, **rule)

    def outage(self) -> None:
        """From now on every call to a provider fails, in one way, until the sky clears."""
        self.clear_sky()
        self._fault, self._calm_sky = self.rng.choice(("http_500", "timeout_before", "http_429")), False
        self.tell(f"outage: {self._fault}")
        self.coverage.note("outage", self._fault)
        self.sandbox.faults(self._fault, rate=1, seconds=_HANGS, match={"path": _API})

    def clear_sky(self) -> None:
        """No faults; what the last ones did is counted."""
        if self._calm_sky:
            return
        injected = self.sandbox.get("faults")["injected"]
        self.coverage.note("fault", self._fault, sum(injected.values()))
        self.sandbox.faults()
        self._calm_sky = True

    def at_provider(self, provider_id: str, do: str, **more: Any) -> bool:
        """What a person does at the provider. False where the provider does not let them."""
        if more.get("force"):
            self.reopened.add(provider_id)
        try:
            shown = self.sandbox.do(provider_id, do, **more)
        except AssertionError as error:
            if "answered 409" not in str(error):
                raise self.broken(f"{do} of {provider_id}: {error}") from error
            self.tell(f"at the provider: {do} {provider_id[-6:]} refused")
            return False
        sumup = doors.provider_of(provider_id) == "sumup"
        self.coverage.note("at sumup" if sumup else "at provider", do)
        if provider_id.startswith("pi_"):
            self.coverage.note("at an intent", do)
        if do in ("dispute", "inquiry") and provider_id not in self.disputed:
            self.disputed.append(provider_id)
        elif do in ("dispute_won", "dispute_lost"):
            self.disputed.remove(provider_id)
        self.tell(f"at the provider: {do} {provider_id[-6:]} {shown['reference']} -> {shown['status']}")
        if sumup:
            self._tells(provider_id, do)
        return True

    def _tells(self, checkout_id: str, do: str) -> None:
        """SumUp calls when a checkout's status changes; of refunds and chargebacks it says nothing."""
        if do in ("pay", "decline", "expire"):
            self.network.changed.append(checkout_id)
        elif do in ("refund", "refund_fail", "dispute", "dispute_won", "dispute_lost"):
            self.network.untold(checkout_id)
            self.refunded_there[checkout_id] += do == "refund"

    def session_of(self, reference: str) -> str:
        """The provider's id of a payment that it knows and we may not; '' where there is none."""
        known = self.sandbox.get("payments", limit=50)
        return next((str(payment["id"]) for payment in known if payment["reference"] == reference), "")

    def lose_the_next_start(self, provider: str) -> None:
        """The next session that is opened is there, but its answer is lost, every time."""
        self.clear_sky()
        self._fault, self._calm_sky = "timeout_after", False
        match = {"method": "POST", "path": _OPENS[provider]}
        self.sandbox.faults("timeout_after", rate=1, times=2, seconds=_HANGS, match=match)

    def lose_the_next_refund(self) -> None:
        """SumUp makes the next refund, and its answer is lost: it keeps no key by which to ask again."""
        self.clear_sky()
        self._fault, self._calm_sky = "timeout_after", False
        match = {"method": "POST", "path": "^/sumup/v1.0/"}
        self.sandbox.faults("timeout_after", rate=1, times=1, seconds=_HANGS, match=match)

    def tamper(self, session: str) -> None:
        """Somebody changes what the provider says of a payment; `mend` changes it back."""
        if session in self.tampered:
            return
        shown = self.sandbox.get(f"payments/{session}")
        before = {name: shown.get(name) for name in ("amount_minor", "currency", "reference", "account")}
        changes: dict[str, Any] = self.rng.choice(
            (
                {"amount_minor": before["amount_minor"] - 1},
                {"amount_minor": before["amount_minor"] + 100},
                {"currency": "USD"},
                {"reference": "ORD-OTHER"},
                {"account": "MSTRANGE"} if shown["provider"] == "sumup" else {"livemode": True},
            )
        )
        before["livemode"] = False
        self.ever_tampered.add(session)
        if not self._is_fulfilled(session):
            self.tampered_unpaid.add(session)
        self.tampered[session] = {name: before[name] for name in changes}
        self.coverage.note("tampered with", next(iter(changes)))
        self.at_provider(session, "tamper", set=changes)

    def _is_fulfilled(self, session: str) -> bool:
        with self.app.app_context():
            bought = select(Payment.fulfilled).where(Payment.provider_id == session)
            return bool(db.session.scalar(bought))

    def mend(self, session: str) -> None:
        """The provider says again what it said at first."""
        before = self.tampered.pop(session, None)
        # What is changed again after its goods were handed over was right when they were.
        self.tampered_unpaid.discard(session)
        if before is not None:
            self.at_provider(session, "tamper", set=before)
