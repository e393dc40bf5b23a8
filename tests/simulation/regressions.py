"""Seeds that once failed, as (seed, lives, what was wrong). Each is run again with every run of the tests."""

from __future__ import annotations

SEEDS: tuple[tuple[int, int, str], ...] = (
    (1, 40, "an incident was issued after its money had been refunded"),
    (5, 40, "an incident without money was decided as refunded, and nobody waited for it any more"),
    (900003, 40, "a record that matched when its goods were handed over was called unpaid by the judge"),
    (900020, 250, "a refund that was never made was found in a sum that came out right by chance"),
)
