"""Seeds that once failed, as (seed, lives, what was wrong): `python -m tests.simulation --known` lives them.

Each night lives them, too. Not every run of the tests: a seed takes other steps as soon as the world learns
something new, so what these found has small tests of its own.
"""

from __future__ import annotations

KNOWN: tuple[tuple[int, int, str], ...] = (
    (1, 40, "an incident was issued after its money had been refunded"),
    (5, 40, "an incident without money was decided as refunded, and nobody waited for it any more"),
    (900003, 40, "a record that matched when its goods were handed over was called unpaid by the judge"),
    (900004, 40, "a record that bought its goods and was changed again was called unpaid by the judge"),
    (900010, 250, "money whose dispute was lost was decided as refunded; a letter left on ended connections"),
    (900020, 250, "a refund that was never made was found in a sum that came out right by chance"),
)
