"""How many threads of a web process may wait for providers, and when nobody asks a silent one just to look.

A thread that waits for a provider serves nobody. So one account gets at most a quarter of a process's
threads, and all accounts together half; who finds no room is told so at once, shows what is known, and asks
again. An account that left three questions unanswered is not asked by refreshes for ten seconds; then one of
them is the probe. Whoever opens a payment, or comes back from one, asks in any case, while there is room,
and waits a moment for it where the account answers promptly.

Jobs and commands are not limited here: nobody waits for their threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Condition
from time import monotonic

import config
from domain.providers import knowledge
from domain.providers.contract import ProviderError

SILENT = 3
PAUSE_SECONDS = 10.0
# An error that took so long to come was a silence, whatever it said.
_LONG = 3.0
# Where a call began so long ago, it is not worth waiting for its end; sooner, where the last was silent.
_PROMPT = 1.0
_PROMPT_AFTER_SILENCE = 0.2
# So long whoever pays waits for room, as long as the account answers promptly.
_WAIT_SECONDS = 3.0
NO_ROOM = "no_room"

_in_web: ContextVar[bool] = ContextVar("in_web", default=False)
_looking: ContextVar[bool] = ContextVar("looking", default=False)
# Whoever has a place needs no second one for a call within the call, such as for a new token.
_placed: ContextVar[bool] = ContextVar("placed", default=False)


@dataclass
class _Account:
    """The calls of this process's requests to one account: when those under way began, and the silence."""

    began: list[float]
    silent: int = 0
    resumes_at: float = 0.0


_accounts: dict[tuple[str, str], _Account] = {}
_changed = Condition()
# More than any installation has organisers; then those that nobody waits for are forgotten.
_MOST_KEPT = 1000


def sizes() -> tuple[int, int]:
    """How many threads of a process may wait for one account, and for all."""
    threads = config.get().web_threads
    return max(1, threads // 4), max(1, threads // 2)


@contextmanager
def looking() -> Iterator[None]:
    """In here somebody only looks, and looks again soon: they wait for no room, as who pays does."""
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


def enter_web() -> None:
    """From now on this thread is one of a web process's few: it serves a request."""
    _in_web.set(True)


def leave_web() -> None:
    """This thread's request is over."""
    _in_web.set(False)


def may_refresh(name: str, account: str) -> bool:
    """Whether somebody who only looks may ask: there is room, and the account was not silent just now.

    After a pause the first who asks gets to, and the next pause begins, which an answer ends.
    """
    if not _in_web.get():
        return True
    with _changed:
        known = _accounts.get((name, account))
        if not _has_room(known):
            return False
        if known is None or known.silent < SILENT:
            return True
        now = monotonic()
        if now < known.resumes_at:
            return False
        known.resumes_at = now + PAUSE_SECONDS
        return True


@contextmanager
def place(name: str, account: str) -> Iterator[None]:
    """A thread's place while it waits for an account. Raises a passing ProviderError `no_room` for none.

    What the call tells of its provider is kept, whoever makes it.
    """
    if not _in_web.get() or _placed.get():
        with knowledge.kept(name):
            yield
        return
    known, began = _take(name, account)
    token = _placed.set(True)
    silent: bool | None = None
    try:
        with knowledge.kept(name):
            yield
        silent = False
    except ProviderError as error:
        silent = error.silent or (not error.permanent and monotonic() - began > _LONG)
        raise
    finally:
        _placed.reset(token)
        _give_back(known, began, silent)


def _take(name: str, account: str) -> tuple[_Account, float]:
    ends = monotonic() + (0.0 if _looking.get() else _WAIT_SECONDS)
    with _changed:
        known = _accounts.get((name, account))
        while not _has_room(known):
            now = monotonic()
            if now >= ends or _is_slow(known, now):
                raise ProviderError(
                    "Others are waiting for this account.", permanent=False, code=NO_ROOM, undone=True
                )
            _changed.wait(min(ends - now, _PROMPT_AFTER_SILENCE))
            known = _accounts.get((name, account))
        if known is None:
            _forget_idle()
            known = _accounts[(name, account)] = _Account([])
        began = monotonic()
        known.began.append(began)
        return known, began


def _is_slow(known: _Account | None, now: float) -> bool:
    if known is None:
        return False
    prompt = _PROMPT_AFTER_SILENCE if known.silent else _PROMPT
    return any(now - begun > prompt for begun in known.began)


def _has_room(known: _Account | None) -> bool:
    own, all_ = sizes()
    if known is not None and len(known.began) >= own:
        return False
    return sum(len(each.began) for each in _accounts.values()) < all_


def _give_back(known: _Account, began: float, silent: bool | None) -> None:
    """`silent` is None where something else ended the call, which says nothing of the account."""
    with _changed:
        known.began.remove(began)
        if silent:
            known.silent += 1
            if known.silent >= SILENT:
                known.resumes_at = monotonic() + PAUSE_SECONDS
        elif silent is not None:
            known.silent = 0
        _changed.notify_all()


def _forget_idle() -> None:
    if len(_accounts) >= _MOST_KEPT:
        for key in [key for key, each in _accounts.items() if not each.began and not each.silent]:
            del _accounts[key]
