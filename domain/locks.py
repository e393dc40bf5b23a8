"""The order in which rows are locked, in one place: order, payment, wallets by id, stock by id (last).

Locks are FOR NO KEY UPDATE: a plain FOR UPDATE collides with the key-share lock that every insert of a
row with a foreign key takes, and deadlocks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import sleep
from typing import TypeVar

from psycopg.errors import DeadlockDetected, SerializationFailure
from sqlalchemy import bindparam, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import joinedload

from domain.errors import NotFound
from extensions import db
from models import Order, Payment

_TRIES = 3
T = TypeVar("T")


# Made once, as making a statement costs more than PostgreSQL's part of it. Lines never change, and are few:
# they come along, and so does the event; neither is locked.
_PAYMENT_AND_ORDER = (
    select(Order, Payment)
    .join(Payment, Payment.order_id == Order.id)
    .where(Payment.id == bindparam("payment_id"))
    .options(joinedload(Order.event), joinedload(Order.lines))
    .with_for_update(key_share=True, of=[Order, Payment])
    .execution_options(populate_existing=True)
)
_ORDER = (
    select(Order)
    .where(Order.id == bindparam("order_id"))
    .with_for_update(key_share=True)
    .execution_options(populate_existing=True)
)


def payment_and_order(payment_id: int) -> tuple[Payment, Order]:
    """Both rows, locked and fresh from the database. NotFound when there is no such payment."""
    row = db.session.execute(_PAYMENT_AND_ORDER, {"payment_id": payment_id}).unique().one_or_none()
    if row is None:
        raise NotFound("no_payment", "There is no such payment.")
    order, payment = row
    return payment, order


def order(order_id: int) -> Order:
    """The order's row, locked and fresh from the database."""
    return db.session.scalars(_ORDER, {"order_id": order_id}).one()


def in_one_transaction(work: Callable[[], T]) -> T:
    """Run `work` and commit; a deadlock is tried again, three times in all. Any other error rolls back."""
    for attempt in range(1, _TRIES + 1):
        try:
            result = work()
            db.session.commit()
            return result
        except OperationalError as error:
            db.session.rollback()
            if attempt == _TRIES or not isinstance(error.orig, DeadlockDetected | SerializationFailure):
                raise
            sleep(random.uniform(0.01, 0.05) * attempt)
        except BaseException:
            db.session.rollback()
            raise
    raise AssertionError("unreachable")
