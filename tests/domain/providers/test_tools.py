"""What is behind the contract: signed rings, the wallet, how adapters are kept and calls are spaced."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from domain import clock
from domain.errors import DomainError
from domain.providers import registry
from domain.providers import wallet as wallet_adapter
from domain.providers.contract import BadSignature, Doorbell, Missing, ProviderError
from domain.providers.throttle import Throttle
from tests.support.benches import StripeBench, fresh
from tests.support.contract import assert_about, opened
from tests.support.sandbox import Sandbox

# --- Signed rings ---------------------------------------------------------------------------------------


@pytest.fixture
def doorbell(app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeBench]:
    """Stripe, whose rings are signed."""
    yield StripeBench(sandbox, monkeypatch)


def event(**changes: Any) -> bytes:
    """A webhook's body."""
    thing = {"object": "checkout.session", "id": "cs_test_1", "metadata": {"reference": "P-1"}} | changes
    return json.dumps(
        {"id": "evt_1", "type": "checkout.session.completed", "data": {"object": thing}}
    ).encode()


def test_a_signed_ring_tells_every_name_of_the_payment(doorbell: StripeBench) -> None:
    bell = doorbell.provider()
    assert isinstance(bell, Doorbell) and bell.rings
    ring = bell.ring(event(), doorbell.sign(event()))
    assert (ring.event_id, ring.type) == ("evt_1", "checkout.session.completed")
    assert (ring.provider_id, ring.reference) == ("cs_test_1", "P-1")
    charge = event(object="charge", id="ch_1")
    assert bell.ring(charge, doorbell.sign(charge)).charge_id == "ch_1"
    assert doorbell.received() == 0


BODIES = [
    b"",
    b"[]",
    b"{}",
    b"null",
    b"not json",
    b'{"id": 1, "type": 2, "data": {"object": "x"}}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", BODIES)
def test_a_signed_ring_that_cannot_be_read_is_refused(doorbell: StripeBench, body: bytes) -> None:
    bell = doorbell.provider()
    assert isinstance(bell, Doorbell)
    with pytest.raises(BadSignature):
        bell.ring(body, doorbell.sign(body))


@pytest.mark.parametrize("signature", ["", "t=1", "t=1,v1=00", "v1=" + "0" * 64, "\u2603"])
def test_a_ring_that_is_not_genuine_is_refused(doorbell: StripeBench, signature: str) -> None:
    bell = doorbell.provider()
    assert isinstance(bell, Doorbell)
    with pytest.raises(BadSignature):
        bell.ring(event(), {"stripe-signature": signature})
    with pytest.raises(BadSignature):
        bell.ring(event(id="cs_test_2"), doorbell.sign(event()))


# --- The wallet: a provider whose money is in our own ledger ----------------------------------------------


def test_a_wallet_payment_is_settled_as_it_starts(app: Flask) -> None:
    wallet = registry.get("wallet")
    report = opened(wallet)
    assert wallet.immediate
    assert_about(report, wallet)
    assert report.state == "paid" and report.charge_id and report.url is None
    assert opened(wallet).provider_id == report.provider_id


def test_a_wallet_payment_has_no_trace_outside_the_ledger(app: Flask) -> None:
    wallet = registry.get("wallet")
    made = opened(wallet)
    assert wallet.find("P-1", clock.now()) is None
    assert wallet.pages(clock.now(), clock.now()) is None
    for look in (wallet.fetch, wallet.refunded_minor):
        with pytest.raises(Missing):
            look(made.provider_id)
    with pytest.raises(Missing):
        wallet.close(made.provider_id, "close-1")
    assert "account" in wallet.health()


def test_a_wallet_refund_has_succeeded(app: Flask) -> None:
    refund = wallet_adapter.WalletProvider(livemode=False).refund("key-P-1", 700, "refund-1")
    assert (refund.amount_minor, refund.state, refund.our_key) == (700, "succeeded", "refund-1")


# --- The tools of the contract --------------------------------------------------------------------------


def test_an_unknown_provider_is_refused_in_words(app: Flask) -> None:
    with pytest.raises(DomainError) as refused:
        registry.get("cowries")
    assert refused.value.code == "unknown_provider" and "cowries" in refused.value.message


def test_adapters_are_kept_but_not_all_of_them(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh(monkeypatch)
    monkeypatch.setitem(registry._BUILDERS, "pebble", "tests.support.pebble")
    first = registry.get("pebble", "shop-0")
    for number in range(1, 2 * registry._MOST_KEPT):
        registry.get("pebble", f"shop-{number}")
        # What is used again and again stays, with its place in line.
        assert registry.get("pebble", "shop-0") is first
    assert len(registry._kept) == registry._MOST_KEPT


def test_a_throttle_spaces_calls_and_refuses_to_wait_for_ever() -> None:
    throttle, began = Throttle(20), time.monotonic()
    for _ in range(5):
        throttle.wait(1)
    assert 0.19 < time.monotonic() - began < 0.6
    slow = Throttle(1)
    slow.wait(0)
    with pytest.raises(ProviderError) as refused:
        slow.wait(0.5)
    assert not refused.value.permanent and refused.value.code == "throttled"


def test_a_refused_caller_takes_no_place_in_the_line() -> None:
    slow = Throttle(2)
    slow.wait(0)
    for _ in range(10):
        with pytest.raises(ProviderError):
            slow.wait(0.1)
    began = time.monotonic()
    slow.wait(1)
    assert time.monotonic() - began < 0.7
