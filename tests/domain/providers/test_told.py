"""The provider contract where nothing can be asked: Kaspi by hand and by its calls, by their declaration."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from flask import Flask

import config
from domain import clock
from domain.providers import kaspi, registry
from domain.providers.calling import Caller
from domain.providers.contract import (
    Confirmed,
    Instructs,
    Missing,
    Presentation,
    Provider,
    ProviderError,
    Steps,
)
from domain.providers.throttle import calls
from tests.support.contract import opened, purchase
from tests.support.kaspi_told import PATH, use_biller, use_manual

MODES = {"manual": use_manual, "biller": use_biller}


@pytest.fixture(params=sorted(MODES))
def provider(request: pytest.FixtureRequest, app: Flask) -> Provider:
    MODES[request.param]()
    return registry.get("kaspi")


def test_it_declares_what_it_cannot_and_makes_no_call(provider: Provider) -> None:
    before, now = calls.total, clock.now()
    can = provider.can
    assert (can.ask, can.close, can.refund, can.search) == (False, False, False, True)
    assert can.lingers > timedelta(0) and can.tells is isinstance(provider, Caller)
    assert isinstance(provider, Provider) and isinstance(provider, Confirmed) and isinstance(provider, Steps)
    assert provider.ready and provider.livemode is False and not provider.immediate
    first = opened(provider)
    assert (first.state, first.amount_minor, first.currency) == ("open", 2500, "KZT")
    assert (first.reference, first.account) == ("P-1", provider.account)
    # The same call is the same payment, so that a lost one may be made again.
    assert opened(provider) == first and opened(provider, "P-2").provider_id != first.provider_id
    assert provider.find("P-9", now) is None
    assert provider.pages(now, now) is None and provider.happened(now, now) is None
    with pytest.raises(Missing):
        provider.fetch(first.provider_id)
    for act in (
        lambda: provider.close(first.provider_id, "close-1"),
        lambda: provider.refund(first.provider_id, 100, "refund-1"),
        lambda: provider.refunded_minor(first.provider_id),
    ):
        with pytest.raises(ProviderError) as refused:
            act()
        assert refused.value.permanent and refused.value.undone
    assert calls.total == before and "form" in provider.health()


def test_it_takes_tenge_and_nothing_else(provider: Provider) -> None:
    assert provider.supports("KZT")
    assert not any(provider.supports(code) for code in ("USD", "EUR", "RUB", "kzt", ""))
    assert isinstance(provider, Steps) and provider.step_minor("KZT") == 100


def test_parameters_survive_being_stored_and_hold_no_secret(provider: Provider) -> None:
    wanted = purchase(provider)
    stored = json.dumps(provider.params(wanted))
    assert json.loads(stored) == provider.params(wanted) and PATH not in stored


def test_each_mode_says_how_it_is_paid(app: Flask) -> None:
    use_manual()
    manual = registry.get("kaspi")
    assert manual.presents("kaspi_qr") is Presentation.WORDS and isinstance(manual, Instructs)
    assert "Aigerim" in manual.instructions and not isinstance(manual, Caller)
    assert opened(manual).url is None
    use_biller()
    biller = registry.get("kaspi")
    assert biller.presents("kaspi_qr") is Presentation.FORM and not isinstance(biller, Instructs)
    # Kaspi's page counts in tiyn.
    assert biller.params(purchase(biller))["form"]["Amount"] == "2500"
    assert opened(biller).url == "https://kaspi.kz/online"


def test_the_mode_is_that_of_the_settings(provider: Provider) -> None:
    live = kaspi.build(replace(config.get(), kaspi_test=False))
    assert live.livemode is True
    off = kaspi.build(replace(config.get(), kaspi_mode=""))
    assert not off.ready


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("QR6458937894", "QR6458937894"),
        (" qr 6458 937894 ", "QR6458937894"),
        ("№ 0123-4567/89", "0123-4567/89"),
        ("12345", ""),
        ("ABCDEF", ""),
        ("ORD-7KQ2MPXA", ""),
        ("ord-7kq2mpxa-1", ""),
        ("=1234567", ""),
        ("1234567;", ""),
        ("٦٤٥٨٩٣٧٨٩٤", ""),
        ("1" * 41, ""),
        ("", ""),
    ],
)
def test_what_a_reference_of_the_bank_looks_like(provider: Provider, typed: str, kept: str) -> None:
    assert isinstance(provider, Confirmed) and provider.bank_reference(typed) == kept


LEAST = {"SECRET_KEY": "x" * 32, "DATABASE_URL": "postgresql://h/n", "REDIS_URL": "redis://h"}


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"KASPI_MODE": "manual"}, "KASPI_MANUAL_TEXT"),
        ({"KASPI_MODE": "biller"}, "KASPI_BILLER_PATH"),
        ({"KASPI_MODE": "biller", "KASPI_BILLER_PATH": "a" * 16}, "KASPI_BILLER_SERVICE"),
        ({"KASPI_BILLER_PATH": "short"}, "KASPI_BILLER_PATH"),
        ({"KASPI_BILLER_PATH": "a/b" * 9}, "KASPI_BILLER_PATH"),
        ({"KASPI_BILLER_IPS": "194.187.247.152, kaspi.kz"}, "KASPI_BILLER_IPS"),
        ({"KASPI_BILLER_IPS": "194.187.247.152/8"}, "KASPI_BILLER_IPS"),
        ({"KASPI_BILLER_URL": "kaspi.kz"}, "KASPI_BILLER_URL"),
        ({"KASPI_TWO_PEOPLE_ABOVE": "1000.00"}, "KASPI_TWO_PEOPLE_ABOVE"),
    ],
)
def test_a_setting_that_cannot_work_is_named(wrong: dict[str, str], names: str) -> None:
    with pytest.raises(config.ConfigError, match=names):
        config.load({"KASSA_ENV": "development", **LEAST, **wrong})


def test_networks_may_be_of_both_kinds(app: Flask) -> None:
    told = config.load(
        {"KASSA_ENV": "development", **LEAST, "KASPI_BILLER_IPS": "194.187.247.0/24, 2001:db8::/32"}
    )
    assert told.kaspi_biller_ips == ("194.187.247.0/24", "2001:db8::/32")
