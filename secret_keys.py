"""SECRET_KEY and the keys before it: what is made of them, and which of their seals still hold."""

from __future__ import annotations

import hashlib

from variables import ConfigError


class SecretKeys:
    """The settings about them. A rotated key is ours alone, a revoked one somebody else has, too."""

    secret_key: str
    secret_keys_rotated: tuple[str, ...]
    secret_keys_revoked: tuple[str, ...]

    def derived_key(self, purpose: str) -> bytes:
        """32 bytes for one purpose, so that no two uses of SECRET_KEY share key material."""
        return _derived(self.secret_key, purpose)

    def derived_keys(self, purpose: str) -> tuple[bytes, ...]:
        """The same, and behind it those of the rotated keys: what any of them has sealed holds."""
        return tuple(_derived(key, purpose) for key in (self.secret_key, *self.secret_keys_rotated))

    def revoked_keys(self, purpose: str) -> tuple[bytes, ...]:
        """Those of the revoked keys: somebody else may have them, so what they have sealed proves nothing."""
        return tuple(_derived(key, purpose) for key in self.secret_keys_revoked)


def _derived(key: str, purpose: str) -> bytes:
    return hashlib.blake2b(purpose.encode(), key=key.encode()[:64], digest_size=32).digest()


def refuse_old(keys: SecretKeys) -> None:
    """A key is today's, rotated or revoked, and nothing of two. ConfigError in words."""
    if keys.secret_key in (*keys.secret_keys_rotated, *keys.secret_keys_revoked):
        raise ConfigError(
            "SECRET_KEY is also in SECRET_KEY_ROTATED or SECRET_KEY_REVOKED: make a new SECRET_KEY, and "
            "leave the old one there."
        )
    if set(keys.secret_keys_rotated) & set(keys.secret_keys_revoked):
        raise ConfigError(
            "A key is in SECRET_KEY_ROTATED and SECRET_KEY_REVOKED: leave it in the second one only."
        )
