"""Passkeys: a second factor that cannot be told on the telephone, nor typed into another site's page.

They are an addition: who has one has an app and a printed sheet, too, for a passkey is bound to the host in
PUBLIC_URL and ends with it. What a browser is asked to sign is kept in its session, and is good for minutes
and once: an answer to a question from before the passkey's last use is none. The library is loaded by who
uses one, for it takes time and memory, and most processes never do.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy import delete, func, or_, select, update

import config
from domain import addresses, clock, names
from domain.errors import DomainError, NotFound
from domain.security import one_time_links
from extensions import db
from models import FactorKind, SecondFactor, User

if TYPE_CHECKING:
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

LIVES = timedelta(minutes=5)
MOST = 10
_LONGEST_NAME = 60
_LONGEST = 20_000


@dataclass(frozen=True)
class Question:
    """What a browser is asked: options in JSON, and what has to come back signed, to be kept meanwhile."""

    options: str
    kept: dict[str, Any]


def host() -> str:
    """The host that passkeys are bound to now."""
    return urlsplit(config.get().public_url).hostname or ""


def of(user: User) -> Sequence[SecondFactor]:
    """The member's passkeys, those of an earlier host, too."""
    query = select(SecondFactor).where(
        SecondFactor.user_id == user.id, SecondFactor.kind == FactorKind.PASSKEY
    )
    return db.session.scalars(query.order_by(SecondFactor.id)).all()


def usable(user: User) -> list[SecondFactor]:
    """Those that work at this host."""
    return [passkey for passkey in of(user) if passkey.host == host()]


def ended() -> int:
    """How many passkeys are of another host, and so of no use: PUBLIC_URL was changed."""
    query = select(func.count()).where(SecondFactor.kind == FactorKind.PASSKEY, SecondFactor.host != host())
    return db.session.scalar(query) or 0


# --- Adding one -----------------------------------------------------------------------------------------


def offer(user: User) -> Question:
    """What a browser is asked in order to make a passkey."""
    import webauthn
    from webauthn.helpers.structs import (
        AuthenticatorSelectionCriteria,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    options = webauthn.generate_registration_options(
        rp_id=host(),
        rp_name=config.get().site_name,
        user_name=addresses.shown(user.email),
        user_id=f"kassa:{user.id}".encode(),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.DISCOURAGED,
            user_verification=UserVerificationRequirement.PREFERRED,
        ),
        exclude_credentials=_described(usable(user)),
    )
    return _question(options, options.challenge)


def add(user: User, kept: dict[str, Any] | None, answer: str, name: str) -> SecondFactor:
    """Keep the passkey that a browser made. No commit. DomainError in words."""
    import webauthn
    from webauthn.helpers.exceptions import WebAuthnException

    challenge = _challenge(kept)
    user = one_time_links.lock(user.id)
    if user.second_factor_at is None:
        raise DomainError("no_app", "Set up the app first: a passkey is an addition to it.")
    if len(of(user)) >= MOST:
        raise DomainError("too_many_passkeys", f"You have {MOST} passkeys already. Remove one first.")
    try:
        made = webauthn.verify_registration_response(
            credential=_read(answer),
            expected_challenge=challenge,
            expected_rp_id=host(),
            expected_origin=config.get().public_url,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_taken() from error
    passkey = SecondFactor(
        user_id=user.id,
        kind=FactorKind.PASSKEY,
        name=names.plain(name)[:_LONGEST_NAME] or "Passkey",
        sealed="",
        credential_id=_text(made.credential_id),
        public_key=_text(made.credential_public_key),
        sign_count=made.sign_count,
        host=host(),
        created_at=clock.now(),
        confirmed_at=clock.now(),
    )
    known = select(SecondFactor.id).where(SecondFactor.credential_id == passkey.credential_id)
    if db.session.scalar(known) is not None:
        raise DomainError("passkey_known", "That passkey is here already.")
    db.session.add(passkey)
    db.session.flush()
    return passkey


def remove(user: User, passkey_id: int) -> None:
    """Take a passkey away. No commit. NotFound for others'."""
    gone = db.session.execute(
        delete(SecondFactor)
        .where(
            SecondFactor.id == passkey_id,
            SecondFactor.user_id == user.id,
            SecondFactor.kind == FactorKind.PASSKEY,
        )
        .returning(SecondFactor.id)
    ).one_or_none()
    if gone is None:
        raise NotFound("no_passkey", "There is no such passkey any more.")


# --- Showing one ----------------------------------------------------------------------------------------


def ask(user: User) -> Question | None:
    """What a browser is asked in order to show a passkey; None where the member has none for this host."""
    known = usable(user)
    if not known:
        return None
    import webauthn
    from webauthn.helpers.structs import UserVerificationRequirement

    options = webauthn.generate_authentication_options(
        rp_id=host(),
        allow_credentials=_described(known),
        user_verification=UserVerificationRequirement.PREFERRED,
    )
    return _question(options, options.challenge)


def prove(user: User, kept: dict[str, Any] | None, answer: str) -> None:
    """A browser's answer shows one of the member's passkeys. Commits. DomainError `wrong_passkey`."""
    import webauthn
    from webauthn.helpers import parse_authentication_credential_json
    from webauthn.helpers.exceptions import WebAuthnException

    challenge = _challenge(kept)
    try:
        said = parse_authentication_credential_json(_read(answer))
        passkey = next(each for each in usable(user) if each.credential_id == _text(said.raw_id))
        shown = webauthn.verify_authentication_response(
            credential=said,
            expected_challenge=challenge,
            expected_rp_id=host(),
            expected_origin=config.get().public_url,
            credential_public_key=_bytes(passkey.public_key),
            credential_current_sign_count=passkey.sign_count,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError, RecursionError, StopIteration) as error:
        raise _not_taken() from error
    asked_at = float((kept or {})["at"])
    last_used = func.extract("epoch", SecondFactor.last_used_at)
    used = db.session.execute(
        update(SecondFactor)
        .where(SecondFactor.id == passkey.id)
        .where(or_(SecondFactor.last_used_at.is_(None), last_used < asked_at))
        .where(or_(SecondFactor.sign_count == 0, SecondFactor.sign_count < shown.new_sign_count))
        .values(last_used_at=clock.now(), sign_count=shown.new_sign_count)
        .returning(SecondFactor.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    db.session.commit()
    if used is None:
        raise _not_taken()


def _question(options: Any, challenge: bytes) -> Question:
    from webauthn.helpers import options_to_json

    kept = {"challenge": _text(challenge), "at": clock.now().timestamp()}
    return Question(options_to_json(options), kept)


def _challenge(kept: dict[str, Any] | None) -> bytes:
    """What had to be signed, unless it is too old, or nothing was asked."""
    if not kept or clock.now().timestamp() - float(kept["at"]) > LIVES.total_seconds():
        raise DomainError("passkey_late", "That took too long. Press the button again.")
    return _bytes(str(kept["challenge"]))


def _read(answer: str) -> dict[str, Any]:
    """The browser's answer, which is anybody's text."""
    if len(answer) > _LONGEST:
        raise ValueError("too long")
    read = json.loads(answer)
    if not isinstance(read, dict):
        raise ValueError("no object")
    return read


def _described(passkeys: Sequence[SecondFactor]) -> list[PublicKeyCredentialDescriptor]:
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    return [PublicKeyCredentialDescriptor(id=_bytes(each.credential_id or "")) for each in passkeys]


def _not_taken() -> DomainError:
    return DomainError("wrong_passkey", "That passkey could not be used. Try again, or type a code.")


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
