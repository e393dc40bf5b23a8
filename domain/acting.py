"""By whose hand, and by which door, what happens now is done.

The edges say it: pages and the API tell who is logged in, or whose key it is (`at_edge`); a job says its name
(`as_job`), and a process that runs jobs says that it does (`only_jobs`), for its threads. What is under none
of them was typed on the machine itself.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from models import ActorKind


@dataclass(frozen=True)
class Actor:
    """Who acts, and from where. `name` tells apart what is no member: a key, a user of the machine."""

    kind: ActorKind
    door: str
    user_id: int | None = None
    name: str = ""


_job: ContextVar[str | None] = ContextVar("job", default=None)
_process: list[str] = []
_edges: list[Callable[[], Actor | None]] = []


def at_edge(find: Callable[[], Actor | None]) -> None:
    """Ask `find` from now on who acts; it knows only while somebody is served at its edge."""
    if find not in _edges:
        _edges.append(find)


def only_jobs(name: str) -> None:
    """All that this process does from now on is a job's doing, unless an edge knows better."""
    _process[:] = [name]


@contextmanager
def as_job(name: str) -> Iterator[None]:
    """All that is done in here, in this thread, is a job's doing."""
    token = _job.set(name)
    try:
        yield
    finally:
        _job.reset(token)


def who() -> Actor:
    """Who acts at this moment."""
    job = _job.get()
    if job is not None:
        return Actor(ActorKind.JOB, job[:30])
    told = (find() for find in _edges)
    found = next((actor for actor in told if actor is not None), None)
    if found is None and _process:
        return Actor(ActorKind.JOB, _process[0])
    return found or _at_the_machine()


def _at_the_machine() -> Actor:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        # In a container the number of a user may have no name.
        name = ""
    return Actor(ActorKind.COMMAND, "command", name=name[:100])
