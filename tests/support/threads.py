"""Many at the same moment: threads with an application context each, let loose by a barrier."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from flask import Flask

from extensions import db

T = TypeVar("T")


def at_once(app: Flask, count: int, work: Callable[[int], T]) -> list[T | BaseException]:
    """Run `work(0)` ... `work(count - 1)` side by side; each one's result, or what it raised."""
    barrier = Barrier(count)
    # The caller's own connection goes back to the pool, which is as small as production's.
    db.session.rollback()

    def one(number: int) -> T:
        with app.app_context():
            # They come together at once; only on a machine that is busy with other things, later.
            barrier.wait(300)
            try:
                return work(number)
            finally:
                db.session.remove()

    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(one, number) for number in range(count)]
    results: list[T | BaseException] = []
    for each in running:
        results.append(each.exception() or each.result())
    return results
