"""How money becomes goods: start, reconcile, settle.

A payment is started (`open_at_provider`), asked about by every door (`reconcile`), and what its provider says
is applied to it (`settle`). Only settling.py writes `payment.state`. See docs/payments.md.
"""

from __future__ import annotations

from domain.lookup import by_code, by_provider_id
from domain.matching import mismatch
from domain.payments.asking import LEASE, active, ask, came_back_unpaid, reconcile, refresh, returned
from domain.payments.settling import (
    Outcome,
    accept,
    decide,
    leave_review,
    mark_done,
    settle,
    tell_end,
    unanswered,
)
from domain.payments.start import KEY_LIFE, finish_start, open_at_provider
from domain.polling import extend, stop_polling

__all__ = [
    "KEY_LIFE",
    "LEASE",
    "Outcome",
    "accept",
    "active",
    "ask",
    "by_code",
    "came_back_unpaid",
    "by_provider_id",
    "decide",
    "extend",
    "finish_start",
    "leave_review",
    "mark_done",
    "mismatch",
    "open_at_provider",
    "reconcile",
    "refresh",
    "returned",
    "settle",
    "stop_polling",
    "tell_end",
    "unanswered",
]
