"""SumUp's doors: the right to speak for an account, its calls to us, and connecting accounts."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest

import config
from domain.providers import connecting
from domain.providers import sumup as adapter
from domain.providers.connecting import Owner, Refused
from domain.providers.contract import BadSignature, ProviderError
from domain.providers.sumup import SumUpProvider
from domain.providers.sumup_oauth import SumUpConnector
from tests.support.benches import Tokens
from tests.support.sumup_wire import (
    AT,
    CHECKOUT_ID,
    checkout,
    purchase,
)
from tests.support.wire import Wire

# --- The right to speak ---------------------------------------------------------------------------------


def test_a_key_that_is_refused_fails_nothing(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"GET {AT}", 401, {"title": "Unauthorized", "status": 401, "type": "https://x/unauthorized"})
    with pytest.raises(ProviderError) as refused:
        sumup.fetch(CHECKOUT_ID, patient=True)
    assert (refused.value.permanent, refused.value.code) == (False, "unauthorised")
    assert len(wire.requests) == 1


def test_writes_are_repeated_with_a_renewed_token(settings: config.Settings, wire: Wire) -> None:
    """401 says that nothing was done, so that even a create may be asked for again."""
    tokens = Tokens("good")
    tokens.now = "stale"
    wire.say("POST /v0.1/checkouts", 401).say("POST /v0.1/checkouts", 201, checkout(merchant_code="MC2"))
    theirs = adapter.build(settings, "MC2", tokens)
    assert theirs.create(theirs.params(purchase()), "key-1").account == "MC2"
    assert [request.headers["authorization"] for request in wire.requests] == ["Bearer stale", "Bearer good"]


def test_many_threads_renew_what_they_were_refused(settings: config.Settings, wire: Wire) -> None:
    class Once(Tokens):
        """Credentials that the connection renews once, whoever asks."""

        def __init__(self) -> None:
            super().__init__("good")
            self.now = "stale"
            self.together = Barrier(8, timeout=10)

        def token(self) -> str:
            found = super().token()
            if found == "stale":
                self.together.wait()
            return found

        def renewed(self, rejected: str) -> str:
            self.rejected.append(rejected)
            self.now = self.right
            return self.right

    tokens = Once()
    wire.say(f"GET {AT}", 200, checkout(merchant_code="MC2"))
    wire.refused.add("Bearer stale")
    theirs = adapter.build(settings, "MC2", tokens)
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda _: theirs.fetch(CHECKOUT_ID), range(8)))
    assert {report.state for report in reports} == {"open"}
    assert tokens.rejected == ["stale"] * 8 and wire.count(f"GET {AT}") == 16


# --- The doorbell ---------------------------------------------------------------------------------------


def status_changed(**more: Any) -> bytes:
    return json.dumps({"event_type": "CHECKOUT_STATUS_CHANGED", "id": CHECKOUT_ID} | more).encode()


def event(kind: str = "checkouts.paid") -> bytes:
    thing = {"id": CHECKOUT_ID, "type": kind.split(".")[0].rstrip("s"), "url": "https://api.sumup.com/x"}
    envelope = {"id": "evt_1", "type": kind, "created_at": "2026-11-21T10:00:00Z", "object": thing}
    return json.dumps(envelope).encode()


def signed(body: bytes, *, secret: str = "whsec_wire", when: float | None = None) -> dict[str, str]:
    moment = str(int(time.time() if when is None else when))
    mac = hmac.new(secret.encode(), b"v1:" + moment.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"x-sumup-webhook-signature": f"t={moment},v1={mac}"}


def test_an_unsigned_call_names_the_checkout(sumup: SumUpProvider) -> None:
    ring = sumup.ring(status_changed(), {})
    assert (ring.event_id, ring.provider_id, ring.only_of_paying) == ("", CHECKOUT_ID, False)
    assert sumup.ring(status_changed(event_type="SOMETHING_NEW"), {}).provider_id is None


def test_a_signed_event_is_remembered_by_its_id(sumup: SumUpProvider) -> None:
    ring = sumup.ring(event(), signed(event()))
    assert (ring.event_id, ring.type, ring.provider_id) == ("evt_1", "checkouts.paid", CHECKOUT_ID)
    assert ring.only_of_paying
    failed = event("checkouts.failed")
    assert not sumup.ring(failed, signed(failed)).only_of_paying
    unknown = event("members.created")
    assert sumup.ring(unknown, signed(unknown)).provider_id is None


@pytest.mark.parametrize(
    "headers",
    [
        signed(event(), secret="another"),
        signed(event("checkouts.failed")),
        signed(event(), when=time.time() - 3600),
        signed(event(), when=time.time() + 3600),
        {"x-sumup-webhook-signature": "t=1,v1=00"},
        {"x-sumup-webhook-signature": ""},
        {"x-sumup-webhook-signature": "\u2603"},
    ],
)
def test_a_forged_signature_is_refused(sumup: SumUpProvider, headers: dict[str, str]) -> None:
    with pytest.raises(BadSignature):
        sumup.ring(event(), headers)


def test_without_a_secret_a_signed_event_is_worth_as_much_as_any(settings: config.Settings) -> None:
    bell = adapter.build(replace(settings, sumup_webhook_secret=""))
    assert bell.rings
    ring = bell.ring(event(), signed(event()))
    assert (ring.event_id, ring.provider_id, ring.only_of_paying) == ("", CHECKOUT_ID, False)


@pytest.mark.parametrize(
    "body", [b'{"event_type": 1, "id": "x"}', b'{"event_type": "a", "id": {}}', b'{"id": ""}']
)
def test_a_call_without_names_is_refused(sumup: SumUpProvider, body: bytes) -> None:
    with pytest.raises(BadSignature):
        sumup.ring(body, {})


# --- Connecting accounts --------------------------------------------------------------------------------


@pytest.fixture
def connector(settings: config.Settings) -> SumUpConnector:
    found = connecting.get("sumup")
    assert isinstance(found, SumUpConnector)
    return found


def tokens(**more: Any) -> dict[str, Any]:
    return {"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3599, "scope": "payments"} | more


def test_the_address_to_send_an_organiser_to(connector: SumUpConnector, wire: Wire) -> None:
    url = connector.authorize_url("st at&e", "https://kassa.example/done")
    assert url.startswith(f"{wire.url}/authorize?response_type=code&client_id=app-1&")
    assert "redirect_uri=https%3A%2F%2Fkassa.example%2Fdone" in url and "state=st+at%26e" in url
    assert "scope=payments+transactions.history" in url and "app-secret" not in url
    assert not wire.requests


def test_a_code_and_a_refresh_token_become_tokens(connector: SumUpConnector, wire: Wire) -> None:
    wire.say("POST /token", 200, tokens()).say("POST /token", 200, tokens(refresh_token=None))
    first = connector.exchange("code-1", "https://kassa.example/done")
    assert (first.access, first.refresh, first.lives, first.scope) == (
        "at-1",
        "rt-1",
        timedelta(seconds=3599),
        "payments",
    )
    assert "at-1" not in repr(first) and "rt-1" not in repr(first)
    assert connector.refresh("rt-1").refresh == ""
    sent = [request.body.decode() for request in wire.requests]
    assert "grant_type=authorization_code" in sent[0] and "code=code-1" in sent[0]
    assert "redirect_uri=https%3A%2F%2Fkassa.example%2Fdone" in sent[0]
    assert "grant_type=refresh_token" in sent[1] and "refresh_token=rt-1" in sent[1]
    assert all("client_id=app-1" in body and "client_secret=app-secret" in body for body in sent)


@pytest.mark.parametrize(
    ("status", "body", "permanent", "code"),
    [
        (400, {"error": "invalid_grant"}, True, "invalid_grant"),
        (401, {"error": "invalid_grant"}, True, "invalid_grant"),
        (401, {"error": "invalid_client"}, True, "invalid_client"),
        (400, {"error": "invalid_scope"}, True, "invalid_scope"),
        (500, {"error": "invalid_grant"}, False, "invalid_grant"),
        (429, b"", False, "http_429"),
        (403, b"<html>", False, "http_403"),
        (302, b"", False, "http_302"),
        (200, b"<html>", False, "unreadable"),
        (200, {}, False, "unreadable"),
        (200, {"access_token": "", "expires_in": 3599}, False, "unreadable"),
        (200, {"access_token": "at", "expires_in": "soon"}, False, "unreadable"),
        (200, {"access_token": "at", "expires_in": 3599, "refresh_token": 7}, False, "unreadable"),
    ],
)
def test_only_invalid_grant_breaks_a_connection(
    connector: SumUpConnector, wire: Wire, status: int, body: Any, permanent: bool, code: str
) -> None:
    wire.say("POST /token", status, body)
    with pytest.raises(ProviderError) as refused:
        connector.refresh("rt-secret")
    assert (refused.value.permanent, refused.value.code) == (permanent, code)
    assert isinstance(refused.value, Refused) == (code == "invalid_grant" and status < 500)
    assert "rt-secret" not in str(refused.value) and "app-secret" not in str(refused.value)
    assert len(wire.requests) == 1


def test_silence_breaks_no_connection(settings: config.Settings) -> None:
    nobody = SumUpConnector(replace(settings, sumup_api_base="http://127.0.0.1:9"))
    for ask in (lambda: nobody.refresh("rt"), lambda: nobody.owner("at")):
        with pytest.raises(ProviderError) as silence:
            ask()
        assert (silence.value.permanent, silence.value.code) == (False, "unreachable")


def member(code: str, **more: Any) -> dict[str, Any]:
    stamps = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    resource = {"id": code, "type": "merchant", "name": f"Shop {code}", **stamps}
    return {
        "id": f"mem-{code}",
        "resource_id": code,
        "type": "merchant",
        "roles": [],
        "permissions": [],
        "status": "accepted",
        "resource": resource,
        **stamps,
    } | more


def memberships(*members: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(members), "total_count": len(members)}


def test_the_owner_of_a_token(connector: SumUpConnector, wire: Wire) -> None:
    other = member("ORG", type="organization"), member("MC3", status="pending")
    wire.say("GET /v0.1/memberships", 200, memberships(member("MC7"), *other))
    assert connector.owner("at-1") == Owner("MC7", "Shop MC7", "")
    assert wire.requests[0].headers["authorization"] == "Bearer at-1"
    stamps = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    merchant = {"merchant_code": "MC7", "country": "DE", "default_currency": "EUR", "default_locale": "de-DE"}
    wire.say("GET /v1/merchants/MC7", 200, merchant | stamps)
    assert connector.owner("at-1") == Owner("MC7", "Shop MC7", "EUR")


@pytest.mark.parametrize(("members", "code"), [([], "no_account"), (["MC1", "MC2"], "several_accounts")])
def test_an_owner_that_cannot_be_told(
    connector: SumUpConnector, wire: Wire, members: list[str], code: str
) -> None:
    wire.say("GET /v0.1/memberships", 200, memberships(*map(member, members)))
    with pytest.raises(ProviderError) as refused:
        connector.owner("at-1")
    assert refused.value.permanent and refused.value.code == code
