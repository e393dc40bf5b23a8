"""Seeds that once failed, as (seed, lives, what was wrong). Each is run again with every run of the tests."""

from __future__ import annotations

SEEDS: tuple[tuple[int, int, str], ...] = (
    (1, 40, "an incident was issued after its money had been refunded"),
    (5, 40, "an incident without money was decided as refunded, and nobody waited for it any more"),
    (900003, 40, "a record that matched when its goods were handed over was called unpaid by the judge"),
    (900004, 40, "a record that bought its goods and was changed again was called unpaid by the judge"),
)

# Lived by whoever asks for them (`python -m tests.simulation --help` names them), and every night: a world of
# 250 lives costs forty seconds of a core, and what these found has small tests of its own.
LONG: tuple[tuple[int, int, str], ...] = (
    (900010, 250, "money whose dispute was lost was decided as refunded; a letter left on ended connections"),
    (900020, 250, "a refund that was never made was found in a sum that came out right by chance"),
)
