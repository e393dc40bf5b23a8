"""Seeds that once failed, as (seed, lives, what was wrong). Each is run again with every run of the tests."""

from __future__ import annotations

SEEDS: tuple[tuple[int, int, str], ...] = ()
