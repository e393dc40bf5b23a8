"""What a password is hashed with: in the test process a quicker setting takes its place."""

from __future__ import annotations

from argon2 import PasswordHasher, extract_parameters

from domain.security import passwords


def test_a_hash_takes_as_much_as_one_is_advised_to_take(quick_hashes: PasswordHasher) -> None:
    """OWASP's advice for argon2id: 19 MiB, two rounds, one lane."""
    made = extract_parameters(quick_hashes.hash("a password that nobody guesses"))
    assert (made.type.name, made.memory_cost, made.time_cost, made.parallelism) == ("ID", 19_456, 2, 1)
    assert (made.salt_len, made.hash_len) >= (16, 32)
    assert passwords._hasher is not quick_hashes
