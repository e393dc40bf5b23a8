"""Buyers' lives by the thousand over the real domain code, in every weather, with processes dying anywhere.

A seed makes a schedule: who orders what, what they do at the provider, which doors open in which order, when
the clock jumps, which calls fail, and at which point a process dies. After every step the invariants of
`domain/office/invariants.py` are asked; at the end the faults stop, the world heals, and an oracle compares
what Kassa wrote with the provider's own books and with the mail that was caught.

`world.py` runs the schedule, `buyers.py` and `staff.py` say what people do, `network.py` is the post between
the provider and us, `deaths.py` wraps every step between a provider call and a commit, `oracle.py` judges,
`coverage.py` says what a run must have used. `python -m tests.simulation` runs any number of lives.
"""

from __future__ import annotations

LIVES_A_WORLD = 250
# The lives of every run of the tests, which has time for no more, and of every night.
SHORT, NIGHTLY = 200, 8 * LIVES_A_WORLD
