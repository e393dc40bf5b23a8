"""Test benches for the provider contract: how a payment is paid, refused or disturbed behind each adapter.

A new provider adds a class to BENCHES; the suite is tests/domain/providers/test_contract.py, and the guide
docs/adding-a-provider.md.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any, ClassVar, Protocol

import pytest
from stripe import WebhookSignature

import config
from domain.providers import kaspi as kaspi_adapter
from domain.providers import registry, stripe_intents
from domain.providers import stripe as stripe_adapter
from domain.providers import sumup as sumup_adapter
from domain.providers.contract import Provider, ProviderError, Report
from domain.providers.stripe_reading import OWN
from tests.support import pebble
from tests.support.sandbox import Sandbox

# A short hang is enough where only the answer's absence matters.
HANG_SECONDS = 0.3


class Tokens:
    """The credentials of a connected account, in a test's hands: what is right, and what was asked."""

    def __init__(self, right: str) -> None:
        self.right = right
        self.now = right
        # What the provider refused, and whether another token may be had.
        self.rejected: list[str] = []
        self.broken = False

    def token(self) -> str:
        if self.broken:
            raise ProviderError("The connection is broken.", permanent=False, code="not_connected")
        return self.now

    def renewed(self, rejected: str) -> str:
        self.rejected.append(rejected)
        self.now = self.right
        return self.token()


class Bench(Protocol):
    """An adapter on a test bench: the adapter as Kassa gets it, and hands behind the provider's counter."""

    name: ClassVar[str]
    # How a payment gets into each state: what buyer, bank and dashboard do, in order.
    states: ClassVar[Mapping[str, tuple[str, ...]]]
    # What the contract leaves to the provider.
    lists: ClassVar[bool]
    disputes: ClassVar[bool]
    # Whether a refund that was made can fail afterwards.
    refunds_fail: ClassVar[bool]
    # Whether an open payment can be closed, and whether one that was refused may be tried again.
    closes: ClassVar[bool] = True
    retries: ClassVar[bool] = True
    # Another bench makes its calls by the same lines: what takes seconds is tried there.
    told_by_another: ClassVar[bool] = False
    # An id of the right form that the provider does not have.
    unknown_id: ClassVar[str]
    # What must never be in anything that is shown.
    secrets: ClassVar[tuple[str, ...]]

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None: ...

    def provider(self) -> Provider:
        """The adapter, as the domain gets it."""
        return registry.get(self.name)

    def unready(self) -> Provider:
        """The adapter as it is where nothing is configured."""

    def limited(self, rate: int) -> Provider:
        """The adapter with a limit of `rate` calls a second."""

    def live(self) -> Provider:
        """The adapter as it is where the money is real."""
        build = import_module(registry._BUILDERS[self.name]).build
        live: Provider = build(
            replace(config.get(), stripe_secret_key="sk_live_bench", stripe_publishable_key="pk_live_bench")
        )
        return live

    def live_report(self, provider_id: str) -> Report:
        """What is said of a payment where the money is real. Here it is the settings that tell."""
        return self.live().fetch(provider_id)

    def do(self, provider_id: str, action: str, **more: Any) -> None:
        """Do what a buyer, a bank or somebody in the dashboard does."""

    def connect(self) -> tuple[str, Tokens]:
        """An account of an organiser's, with its credentials. Only where the adapter connects accounts."""
        pytest.fail(f"{self.name} connects accounts: its bench must make one.")

    def knock(self, provider_id: str) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers (in lower case) of a genuine ring about a payment. Only where it rings."""
        pytest.fail(f"{self.name} rings: its bench must knock.")

    def trouble(
        self, kind: str = "", *, method: str = "", times: int | None = None, seconds: float = HANG_SECONDS
    ) -> None:
        """Put a fault in force, for the next `times` calls (of one method); none without a kind."""

    def received(self) -> int:
        """How many calls have come to the provider's API."""

    def payments(self) -> int:
        """How many payments the provider has."""

    def given_back_minor(self, provider_id: str) -> int:
        """What went back of a payment by the provider's books. Only where it keeps no keys of refunds."""
        pytest.fail(f"{self.name} keeps no keys of refunds: its bench must tell what went back.")

    def spoil(self, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters with something in them that the provider refuses."""

    def elsewhere(self, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters as another program would send them that uses the same account."""


def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters are made anew for a bench, and forgotten with it."""
    monkeypatch.setattr(registry, "_kept", OrderedDict())


def speak(monkeypatch: pytest.MonkeyPatch, account: str, tokens: Tokens) -> None:
    """Let `tokens` be what Kassa knows of a connected account."""
    others = registry._credentials
    monkeypatch.setattr(
        registry, "_credentials", lambda name, wanted: tokens if wanted == account else others(name, wanted)
    )


class SandboxBench(Bench):
    """For providers that the sandbox imitates: its /control has hands and faults for all of them."""

    # The beginning of the provider's paths in the sandbox.
    path: ClassVar[str]

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sandbox = sandbox
        self.monkeypatch = monkeypatch
        fresh(monkeypatch)

    def do(self, provider_id: str, action: str, **more: Any) -> None:
        self.sandbox.do(provider_id, action, **more)

    def trouble(
        self, kind: str = "", *, method: str = "", times: int | None = None, seconds: float = HANG_SECONDS
    ) -> None:
        if not kind:
            return self.sandbox.faults()
        rule: dict[str, Any] = {
            "match": {"path": f"^/{self.path}", "method": method},
            "seconds": seconds,
        }
        if times is not None:
            rule["times"] = times
        return self.sandbox.faults(kind, **rule)

    def received(self) -> int:
        return sum(call["path"].startswith(f"/{self.path}") for call in self.sandbox.calls())

    def payments(self) -> int:
        return sum(payment["provider"] == self.name for payment in self.sandbox.get("payments"))

    def given_back_minor(self, provider_id: str) -> int:
        found: int = self.sandbox.get(f"payments/{provider_id}")["refunded_minor"]
        return found


class StripeBench(SandboxBench):
    """Stripe, through the official SDK, over the sandbox."""

    name = "stripe"
    path = "stripe/"
    states = {
        "open": (),
        "processing": ("pay_later",),
        "paid": ("pay",),
        "failed": ("pay_later", "fail_later"),
        "expired": ("expire",),
    }
    lists = True
    disputes = True
    refunds_fail = True
    unknown_id = "cs_test_nobodyhasthis"
    secrets = ("sk_test_kassa_sandbox", "whsec_kassa_sandbox")

    def unready(self) -> Provider:
        return stripe_adapter.build(
            replace(config.get(), stripe_secret_key="", stripe_publishable_key="", stripe_webhook_secret="")
        )

    def limited(self, rate: int) -> Provider:
        return stripe_adapter.build(replace(config.get(), stripe_rate_per_second=rate))

    def live_report(self, provider_id: str) -> Report:
        """Each of Stripe's records says itself whether it is live."""
        self.do(provider_id, "tamper", set={"livemode": True})
        return self.provider().fetch(provider_id)

    def spoil(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "colour": "red"}

    def elsewhere(self, params: dict[str, Any]) -> dict[str, Any]:
        metadata = {**params["metadata"], "site": "https://other.example"}
        return {**params, "metadata": metadata, "payment_intent_data": {"metadata": metadata}}

    def sign(self, body: bytes) -> dict[str, str]:
        """The headers that Stripe would send with a webhook."""
        signature = WebhookSignature.generate_signature_header(body.decode("latin-1"), "whsec_kassa_sandbox")
        return {"stripe-signature": signature}

    def knock(self, provider_id: str) -> tuple[bytes, Mapping[str, str]]:
        thing = {"object": "checkout.session", "id": provider_id}
        event = {"id": "evt_1", "type": "checkout.session.completed", "data": {"object": thing}}
        body = json.dumps(event).encode()
        return body, self.sign(body)


class IntentsBench(StripeBench):
    """Stripe once more, where a wallet is the first way to pay: a PaymentIntent, and a button on our page."""

    states = {
        "open": (),
        "processing": ("pay_later",),
        "paid": ("pay",),
        "failed": ("decline", "expire"),
        "cancelled": ("cancel",),
        "expired": ("expire",),
    }
    unknown_id = "pi_nobodyhasthis"
    told_by_another = True

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(sandbox, monkeypatch)
        monkeypatch.setattr(stripe_adapter.StripeProvider, "methods", stripe_intents.METHODS)

    def elsewhere(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "metadata": {**params["metadata"], "site": "https://other.example"}}

    def knock(self, provider_id: str) -> tuple[bytes, Mapping[str, str]]:
        thing = {"object": "payment_intent", "id": provider_id, "metadata": {"payment": OWN}}
        event = {"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": thing}}
        body = json.dumps(event).encode()
        return body, self.sign(body)


class SumUpBench(SandboxBench):
    """SumUp's hosted checkout, through the official SDK, over the sandbox."""

    name = "sumup"
    path = "sumup/"
    states = {
        "open": (),
        "paid": ("pay",),
        "failed": ("decline", "expire"),
        "expired": ("expire",),
    }
    lists = False
    disputes = False
    refunds_fail = True
    unknown_id = "4e425463-3e1b-431d-83fa-1e51c2925e99"
    secrets = ("sup_sk_kassa_sandbox", "cc_sk_classic_kassa_sandbox")

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(sandbox, monkeypatch)
        monkeypatch.setattr(
            config,
            "_current",
            replace(
                config.get(),
                sumup_api_key="sup_sk_kassa_sandbox",
                sumup_merchant_code="MKASSA01",
                sumup_client_id="cc_classic_kassa_sandbox",
                sumup_client_secret="cc_sk_classic_kassa_sandbox",
                sumup_api_base=f"{sandbox.base_url}/sumup",
                sumup_rate_per_second=1000,
                sumup_test_account=True,
            ),
        )

    def unready(self) -> Provider:
        return sumup_adapter.build(replace(config.get(), sumup_api_key="", sumup_client_id=""))

    def limited(self, rate: int) -> Provider:
        return sumup_adapter.build(replace(config.get(), sumup_rate_per_second=rate))

    def connect(self) -> tuple[str, Tokens]:
        (merchant,) = self.sandbox.post("merchants", {"count": 1})
        tokens = Tokens(merchant["access_token"])
        speak(self.monkeypatch, merchant["code"], tokens)
        return merchant["code"], tokens

    def knock(self, provider_id: str) -> tuple[bytes, Mapping[str, str]]:
        return json.dumps({"event_type": "CHECKOUT_STATUS_CHANGED", "id": provider_id}).encode(), {}

    def spoil(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "currency": "KZT"}

    def elsewhere(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "description": "Two flat whites"}


class KaspiBench(SandboxBench):
    """Kaspi's QR API in one of its forms, over the sandbox."""

    form: ClassVar[str]
    name = "kaspi"
    path = "kaspi/"
    # How a code says that its time is over is not known: here it is one of the words that a setting explains.
    states = {
        "open": (),
        "processing": ("pay_later",),
        "paid": ("pay",),
        "failed": ("pay_later", "fail_later"),
        "expired": ("expire",),
    }
    lists = False
    disputes = False
    refunds_fail = False
    closes = False
    retries = False
    unknown_id = "99999999999"
    secrets = ("kaspi_kassa_sandbox", "device_kassa_sandbox", "pfx_kassa_sandbox")

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(sandbox, monkeypatch)
        sandbox.post("settings", {"kaspi": {"expired_status": "Expired"}})
        monkeypatch.setattr(config, "_current", kaspi_settings(sandbox, self.form))

    def unready(self) -> Provider:
        return kaspi_adapter.build(replace(config.get(), kaspi_api_key="", kaspi_pfx=""))

    def limited(self, rate: int) -> Provider:
        return kaspi_adapter.build(replace(config.get(), kaspi_rate_per_second=rate))

    def live(self) -> Provider:
        return kaspi_adapter.build(replace(config.get(), kaspi_test=False))

    def knock(self, provider_id: str) -> tuple[bytes, Mapping[str, str]]:
        return json.dumps({"QrPaymentId": provider_id}).encode(), {}

    def spoil(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "Amount": 0}

    def elsewhere(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "ExternalId": "Two flat whites"}


class KaspiR1Bench(KaspiBench):
    form = "r1"
    told_by_another = True


class KaspiR2Bench(KaspiBench):
    form = "r2"
    told_by_another = True


class KaspiR3Bench(KaspiBench):
    form = "r3"


def kaspi_settings(sandbox: Sandbox, form: str, **more: Any) -> config.Settings:
    """The settings in force, with one form of the sandbox's Kaspi in them."""
    told = sandbox.get("settings")["kaspi"]
    proof: dict[str, Any] = {"kaspi_api_key": told["api_key"]}
    if form != "r1":
        proof = {
            "kaspi_pfx": told["pfx"],
            "kaspi_pfx_password": told["pfx_password"],
            "kaspi_ca": told["ca"],
        }
    return replace(
        config.get(),
        **{
            "kaspi_mode": form,
            "kaspi_api_base": told["api_base" if form == "r1" else "tls_base"],
            "kaspi_bin": told["bin"],
            "kaspi_trade_point": told["trade_point"],
            "kaspi_device_id": "kassa",
            "kaspi_device_token": told["device_token"],
            "kaspi_rate_per_second": 1000,
            "kaspi_status_map": (("Expired", "expired"),),
            "kaspi_test": True,
            **proof,
            **more,
        },
    )


class PebbleBench(Bench):
    """The toy provider of docs/adding-a-provider.md."""

    name = "pebble"
    states = {
        "open": (),
        "processing": ("pay_later",),
        "paid": ("pay",),
        "failed": ("pay_later", "fail_later"),
        "cancelled": ("cancel",),
        "expired": ("expire",),
    }
    lists = False
    disputes = False
    refunds_fail = True
    unknown_id = "peb_404"
    secrets = ("pebble-test-token",)
    _actions: ClassVar[dict[str, dict[str, str]]] = {
        "pay": {"state": "taken"},
        "decline": {"why": "The card was refused."},
        "pay_later": {"state": "on_its_way"},
        "fail_later": {"state": "bounced", "why": "There was no money in the account."},
        "cancel": {"state": "closed"},
        "expire": {"state": "lapsed"},
    }

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bank = pebble.PebbleBank()
        self.monkeypatch = monkeypatch
        fresh(monkeypatch)
        monkeypatch.setattr(pebble, "BANK", self.bank)
        monkeypatch.setitem(registry._BUILDERS, self.name, "tests.support.pebble")

    def unready(self) -> Provider:
        return pebble.PebbleProvider(self.bank, pebble.OurToken(""), "shop-1", livemode=False)

    def limited(self, rate: int) -> Provider:
        ours = pebble.OurToken(self.bank.token)
        return pebble.PebbleProvider(self.bank, ours, "shop-1", livemode=False, rate=rate)

    def connect(self) -> tuple[str, Tokens]:
        number = len(self.bank.shops) + 1
        tokens = Tokens(f"pebble-test-token-{number}")
        self.bank.shops[tokens.right] = f"shop-{number}"
        speak(self.monkeypatch, f"shop-{number}", tokens)
        return f"shop-{number}", tokens

    def knock(self, provider_id: str) -> tuple[bytes, Mapping[str, str]]:
        return json.dumps({"payment": provider_id}).encode(), {}

    def do(self, provider_id: str, action: str, **more: Any) -> None:
        payment = self.bank.payments[provider_id]
        if action == "refund":
            self.bank.give_back(payment, f"{more['amount_minor'] / 100:.2f}")
        elif action == "refund_fail":
            payment["returns"][-1].update(state="bounced", why="The account was closed.")
        else:
            payment.update(self._actions[action])
        self.bank.touch(payment)

    def trouble(
        self, kind: str = "", *, method: str = "", times: int | None = None, seconds: float = HANG_SECONDS
    ) -> None:
        self.bank.trouble, self.bank.times, self.bank.only = kind, times, method

    def received(self) -> int:
        return self.bank.received

    def payments(self) -> int:
        return len(self.bank.payments)

    def given_back_minor(self, provider_id: str) -> int:
        return sum(round(100 * float(made["amount"])) for made in self.bank.payments[provider_id]["returns"])

    def spoil(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "colour": "red"}

    def elsewhere(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "return_to": "https://other.example/thanks"}


# Providers whose payments are made at the provider. The wallet is the one that is settled in our own ledger.
# One that has several forms, or keeps payments in several shapes, has a bench for each, behind its name.
BENCHES: dict[str, type[Bench]] = {
    **{bench.name: bench for bench in (StripeBench, SumUpBench, PebbleBench)},
    **{f"kaspi-{bench.form}": bench for bench in (KaspiR1Bench, KaspiR2Bench, KaspiR3Bench)},
    "stripe_intents": IntentsBench,
}
