"""What has happened in a world so far, and how it is told when something is wrong."""

from __future__ import annotations

import re

from flask import Flask
from sqlalchemy import select

from extensions import db
from models import Order, Transfer

_TRACE_SHOWN = 60
_ORDER_CODE = re.compile(r"ORD-[A-Z0-9]{8}")


class Broken(AssertionError):
    """Something that must hold does not: `why`. The text has the seed and the last steps that led there, too.

    `trace` has all of them.
    """

    def __init__(self, why: str, told: str, trace: list[str]) -> None:
        super().__init__(told)
        self.why, self.trace = why, trace


class Story:
    """The steps of a seed, in order, with the world's time of each."""

    def __init__(self, app: Flask, seed: int) -> None:
        self.app, self.seed = app, seed
        self.trace: list[str] = []
        self._offset = 0.0

    def tell(self, line: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{len(self.trace):5} +{self._offset / 3600:7.2f}h {line}")

    def broken(self, why: str) -> Broken:
        """The failure, with its seed and the steps that led to it."""
        shown = "\n".join(self.trace[-_TRACE_SHOWN:])
        stories = "\n".join(self._story(code) for code in sorted(set(_ORDER_CODE.findall(why)))[:3])
        head = f"seed {self.seed}, step {len(self.trace)}: {why}"
        return Broken(why, f"{head}\n\n{shown}\n\n{stories}\n\n{head}", self.trace)

    def _story(self, code: str) -> str:
        """All that happened to an order: its steps, its timeline and its transfers."""
        lines = [f"Order {code}:", *(line for line in self.trace if code in line)]
        with self.app.app_context():
            order = db.session.scalar(select(Order).filter_by(code=code))
            if order is None:
                return "\n".join(lines)
            lines += [f"  {e.at:%d %H:%M:%S} {e.door} {e.what}: {e.text}" for e in order.timeline]
            lines += [
                f"  {p.reference} {p.state} {p.provider_id} got {p.received_minor}" for p in order.payments
            ]
            moved = select(Transfer).where(Transfer.order_id == order.id).order_by(Transfer.id)
            lines += [
                f"  {t.key}: {t.amount_minor} {t.currency} {t.debit} -> {t.credit}"
                for t in db.session.scalars(moved)
            ]
        return "\n".join(lines)
