"""What the runs together must have used: transitions, doors, faults and points of death.

A run that left something out proves nothing about it, so it fails. What cannot happen
is named with its reason.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from models import PAYMENT_NEXT, PaymentState
from tests.simulation import NIGHTLY
from tests.simulation.doors import DOORS

Transition = tuple[PaymentState, PaymentState]

# What the table allows and need not be seen.
RARE: dict[Transition, str] = {
    (PaymentState.CREATED, PaymentState.CANCELLED): (
        "Closing a payment opens it first; recovery finds an expired one only when it comes late, and it is "
        "cancelled only when somebody had asked for that before."
    ),
    (PaymentState.CREATED, PaymentState.PROCESSING): (
        "A handful in two thousand lives, or none; payments/test_starting.py finds one after its hold."
    ),
    **dict.fromkeys(
        (
            (PaymentState.FAILED, PaymentState.PROCESSING),
            (PaymentState.FAILED, PaymentState.REVIEW),
            (PaymentState.CANCELLED, PaymentState.REVIEW),
        ),
        "Two or three in two thousand lives, if any; payments/test_settling.py has every pair of states.",
    ),
}
FAULTS = (
    "timeout_before",
    "timeout_after",
    "http_500",
    "http_500 after",
    "http_500 stored",
    "http_429",
    "slow",
    "garbage",
    "garbage after",
    "smtp_refuse",
    "smtp_drop_after_data",
    "webhook_lost",
    "webhook_twice",
    "webhook_late",
)

# What people and banks do at the provider.
AT_PROVIDER = (
    "pay",
    "decline",
    "pay_later",
    "complete_later",
    "fail_later",
    "cancel",
    "expire",
    "refund",
    "refund_fail",
    "inquiry",
    "dispute",
    "dispute_won",
    "dispute_lost",
    "tamper",
)
AT_SUMUP = (
    *("pay", "decline", "expire", "refund", "refund_fail"),
    *("dispute", "dispute_won", "dispute_lost", "tamper"),
)
# And of a payment that a wallet's button makes.
AT_AN_INTENT = ("pay", "decline", "pay_later", "expire")
# Of those a few hundred lives see one or none, and two thousand some.
AT_AN_INTENT_BY_NIGHT = ("complete_later", "refund")
# How a payment at SumUp can go.
_SUMUP_WAYS = {
    PaymentState.CREATED: (PaymentState.OPEN, PaymentState.PAID, PaymentState.FAILED),
    PaymentState.OPEN: (
        *(PaymentState.PAID, PaymentState.FAILED, PaymentState.CANCELLED),
        *(PaymentState.EXPIRED, PaymentState.REVIEW),
    ),
    PaymentState.FAILED: (PaymentState.PAID,),
    PaymentState.CANCELLED: (PaymentState.PAID,),
    PaymentState.EXPIRED: (PaymentState.PAID,),
    PaymentState.PAID: (PaymentState.REVIEW,),
}
# What organisers do with their accounts, and what is done to them.
ORGANISERS = ("connect", "another", "disconnect", "revoke", "revoke_access", "options")
# What becomes of entries in tournaments.
ENTRIES = ("with a fee", "free", "refused", "withdrawn when PENDING", "withdrawn when PAID")
FALSE_RINGS = ("unknown checkout", "unknown type", "no JSON", "no object", "nothing changed")
# Where processes can die: around each provider call, each letter, and each commit of these functions.
_CALLS = (
    *("create", "find", "fetch", "pages", "close", "refund", "find_refund", "letter"),
    *("sumup create", "sumup find", "sumup fetch", "sumup close", "sumup refund", "sumup refunded_minor"),
    *("sumup exchange", "sumup refresh"),
)
_COMMITS = (
    "connections.linked_accounts.authorize_url",
    "connections.linked_accounts.connect",
    "connections.linked_accounts.disconnect",
    "connections.linked_accounts.forget_ended",
    "connections.linked_accounts.tend",
    "connections.linked_accounts.use_state",
    "orders.event_cancellation.refund_everybody",
    "orders.event_cancellation._claim",
    "orders.event_cancellation._let_go",
    "orders.line_turns.look_after",
    "post.joining.join_due",
    "post.mail_requests.answer_due",
    "catalogue.events.cancel_event",
    "payments.incident_decisions.resolve",
    "payments.webhooks._act_on",
    "payments.webhooks._failed",
    "payments.webhooks._remember",
    "payments.webhooks._signed",
    "sweep.lanes.claim",
    "sweep.lanes.find",
    "sweep.account_history._claim",
    "sweep.account_history._connected",
    "sweep.account_history._let_go",
    "sweep.account_history._move",
    "payments.never_opened._write",
    "orders.entries.withdraw",
    "orders.placing._once",
    "orders.managing.cancel",
    "orders.managing.correct_email",
    "orders.managing.attempt",
    "orders.managing.resend",
    "post.outbox._claim",
    "post.outbox._not_sent",
    "post.outbox._sent",
    "payments.reconciling.returned",
    "payments.settling.give_up",
    "sweep.digests.raise_dead_rings",
    "sweep.digests.raise_expired",
    "sweep.digests.raise_stuck",
    "people.athletes.add",
    "payments.settling.override",
    "payments.settling.settle",
    "payments.settling.unanswered",
    "payments.poll_schedule.may_ask",
    "sweep.reading._touch",
    "sweep.reading._window",
    "payments.refunds.due",
    "payments.refunds.follow_up",
    "payments.refunds.request",
    "sweep.sweeping._finish",
    "sweep.sweeping._run",
    "orders.top_ups._is_first_return",
    "ledger.wallet.capture",
    "ledger.wallet.expire_holds",
    "ledger.wallet.hold",
    "ledger.wallet.void",
)
# Two thousand lives need not come by these at all.
_SELDOM = (
    *(
        "row_by_row.do",
        "people.athletes.agree",
        "orders.managing.withdraw",
        "payments.replacements.begin",
        "payments.replacements._tell_now",
        "sweep.account_history._tell_behind",
    ),
    *(
        "catalogue.event_news._tell",
        "orders.event_cancellation._tell_refused",
        "payments.webhooks._unknown",
        "post.outbox._not_sent",
        "post.outbox._still_ours",
    ),
    *("payments.refunds._follow_up_by_list", "payments.refunds._take_turn", "sweep.lanes.give_back"),
    *("sweep.account_history._find_whose", "payments.settling.replace", "catalogue.events._commit_event"),
)
# A sweep that dies has mostly died before it comes to these, its last duties.
_LAST = (
    *(
        "connections.linked_accounts.tend",
        "connections.linked_accounts.forget_ended",
        "sweep.account_history.",
        "sweep.digests.",
        "sweep.sweeping._finish",
    ),
    "ledger.wallet.expire_holds",
)
# A point that was passed so often must have been somebody's end.
_OFTEN = 100
DEATH_POINTS = (
    *(f"{call}:{side}" for call in _CALLS for side in ("before", "after")),
    *(f"{function}:{side} commit" for function in _COMMITS for side in ("before", "after")),
)


class Coverage:
    """Counts of what was used, by kind: transitions, doors, faults, deaths, lives, ends."""

    def __init__(self) -> None:
        self.used: dict[str, Counter[str]] = {}

    def note(self, kind: str, name: str, times: int = 1) -> None:
        self.used.setdefault(kind, Counter())[name] += times

    def note_all(self, kind: str, counts: Counter[str]) -> None:
        for name, times in counts.items():
            self.note(kind, name, times)

    def save(self, path: Path) -> None:
        """Write it where the other processes' is, whole or not at all."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(self.used))
        new.replace(path)

    def add(self, path: Path) -> None:
        """Add what another run has written."""
        for kind, counts in json.loads(path.read_text()).items():
            self.note_all(kind, Counter(counts))

    def wanted(self) -> list[tuple[str, str]]:
        """Kind and name of all that two thousand lives use."""
        by_night = self.used.get("total", Counter())["lives"] >= NIGHTLY
        wanted = {
            "transition": [_words(pair) for pair in reachable()],
            "door": list(DOORS),
            "fault": list(FAULTS),
            "at provider": list(AT_PROVIDER),
            "at sumup": list(AT_SUMUP),
            "at an intent": [*AT_AN_INTENT, *(AT_AN_INTENT_BY_NIGHT if by_night else ())],
            "sumup transition": [
                _words((before, after)) for before, nexts in _SUMUP_WAYS.items() for after in nexts
            ],
            "organiser": list(ORGANISERS),
            "false ring": list(FALSE_RINGS),
            "entry": list(ENTRIES),
            "cancelled event": ["with refunds", "without refunds", "refunded later"],
            "outage": ["http_500", "timeout_before", "http_429"],
            "point": [point for point in DEATH_POINTS if not point.startswith(_SELDOM)],
            "death": [
                point
                for point, passed in self.used.get("point", Counter()).items()
                if passed >= _OFTEN and not point.startswith(_LAST)
            ],
        }
        return [(kind, name) for kind, names in wanted.items() for name in names]

    def missing(self) -> tuple[list[str], list[str]]:
        """What was left out, in words; and points of death that no list names. Nothing when all was used."""
        left_out = [
            f"{kind} not used: {name}"
            for kind, name in self.wanted()
            if not self.used.get(kind, Counter())[name]
        ]
        unknown = [
            f"new point of death, add it to DEATH_POINTS: {name}"
            for name in self.used.get("point", Counter())
            if name not in DEATH_POINTS and not name.startswith(_SELDOM)
        ]
        return left_out, unknown

    def table(self) -> str:
        """Everything that was used, for a person."""
        lines = []
        for kind, counts in sorted(self.used.items()):
            lines.append(f"{kind}:")
            lines += [f"  {times:7} {name}" for name, times in sorted(counts.items())]
        return "\n".join(lines)


def reachable() -> list[Transition]:
    """The transitions that must be seen."""
    pairs = [(before, after) for before, nexts in PAYMENT_NEXT.items() for after in sorted(nexts)]
    return [pair for pair in pairs if pair not in RARE]


def _words(pair: Transition) -> str:
    return f"{pair[0]} -> {pair[1]}"
