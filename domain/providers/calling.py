"""The smaller contract with a provider that calls us: whether something may be paid, and that it was.

An adapter says whose a call is, reads it, and writes the answer as the provider reads it. What that is,
domain/payments/calls.py decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable


class Verdict(StrEnum):
    """What a provider that calls us is answered."""

    OK = "ok"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    PAID = "paid"
    BUSY = "busy"
    ERROR = "error"


@dataclass(frozen=True)
class Call:
    """A provider's call. `pays`: it tells that `account` was paid; else it asks whether it may be.

    `account` is what the payer was told to name. The sum is None where the call names none that can be read.
    """

    pays: bool
    txn_id: str
    account: str
    amount_minor: int | None = None
    paid_at: datetime | None = None


@dataclass(frozen=True)
class Answer:
    """What a call is answered. `ours` is our own name for it, where we keep it."""

    txn_id: str
    verdict: Verdict
    words: str = ""
    amount_minor: int | None = None
    ours: str = ""


class BadCall(Exception):
    """A call that cannot be read. `txn_id` is its name, where that can."""

    def __init__(self, words: str, txn_id: str = "") -> None:
        super().__init__(words)
        self.txn_id = txn_id


@runtime_checkable
class Caller(Protocol):
    """A provider that calls us: whether an account may be paid, and that it was."""

    @property
    def believed_up_to_minor(self) -> int | None:
        """A larger sum waits for the bank's statement; None: a call is always believed."""

    def admits(self, secret: str, address: str) -> bool:
        """Whether a call with this secret from this network address is the provider's."""

    def read_call(self, query: Mapping[str, str]) -> Call:
        """What a call says. BadCall where it cannot be read."""

    def answer(self, answer: Answer) -> str:
        """The JSON that the provider reads."""
