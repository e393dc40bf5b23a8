"""Kaspi's QR API as the adapter reads it: words, amounts, times, certificates, and answers that are lost."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import config
from domain import clock
from domain.errors import DomainError
from domain.ledger import transfers
from domain.office import invariants
from domain.payments import incident_decisions, reconciling, refunds, starting
from domain.providers import kaspi, kaspi_certificate, kaspi_line, kaspi_qr, registry
from domain.providers.contract import Anothers, Missing, ProviderError, Report
from domain.providers.kaspi_qr import KaspiQr
from domain.sweep import sweeping
from extensions import db
from models import Incident, OrderState, Payment, PaymentState, RefundState
from tests.domain.payments.test_second_provider import again, opened, sold
from tests.support.benches import KaspiR1Bench, kaspi_settings
from tests.support.contract import purchase
from tests.support.sandbox import Sandbox, free_port
from tests.support.shop import make_event, place
from tests.support.wire import Wire

NUMBER = "12800000001"
STATUS = f"GET /r1/v02/payment/status/{NUMBER}"


def said(status: str | None = None, code: Any = 0, **data: Any) -> dict[str, Any]:
    """An envelope, with a status in it."""
    return {"StatusCode": code, "Message": "ok", "Data": data | ({"Status": status} if status else {})}


def loaded(**variables: str) -> config.Settings:
    least = {"SECRET_KEY": "x" * 32, "DATABASE_URL": "postgresql://h/n", "REDIS_URL": "redis://h"}
    return config.load({"KASSA_ENV": "development", **least, **variables})


def adapter(**more: Any) -> KaspiQr:
    """r1, with nothing that needs a sandbox."""
    settings = replace(
        loaded(),
        **{
            "kaspi_mode": "r1",
            "kaspi_api_key": "key",
            "kaspi_bin": "990140001234",
            "kaspi_device_token": "device",
            "kaspi_trade_point": "1001",
            "kaspi_device_id": "till",
            "kaspi_rate_per_second": 1000,
            **more,
        },
    )
    return KaspiQr(settings)


@pytest.fixture
def wired(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> KaspiQr:
    """r1 on a wire: what comes over it is said by hand. It needs no database."""
    monkeypatch.setattr(config, "_current", loaded())
    return adapter(kaspi_api_base=wire.url)


# --- Words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("QrTokenCreated", "open"),
        ("RemotePaymentCreated", "open"),
        ("Wait", "processing"),
        ("Processed", "paid"),
        ("Error", "failed"),
        # They sound like an end, and nobody can say that they are one.
        ("Expired", "open"),
        ("CancelledByUser", "open"),
        ("QrTokenDiscarded", "open"),
        # Nobody has heard of these.
        ("PaymentConfirmation", "processing"),
        ("processed", "processing"),
    ],
)
def test_each_word_has_a_state_and_none_is_failed_by_a_guess(
    wire: Wire, wired: KaspiQr, word: str, state: str
) -> None:
    wire.say(STATUS, 200, said(word, Amount=90.0))
    assert wired.fetch(NUMBER).state == state


def test_a_setting_adds_words(wire: Wire, wired: KaspiQr) -> None:
    wire.say(STATUS, 200, said("Expired"))
    words = loaded(KASPI_STATUS_MAP="Expired=expired, Gone = cancelled").kaspi_status_map
    assert words == (("Expired", "expired"), ("Gone", "cancelled"))
    assert adapter(kaspi_api_base=wire.url, kaspi_status_map=words).fetch(NUMBER).state == "expired"


@pytest.mark.parametrize(
    "answer",
    [
        said(""),
        said(None),
        {"StatusCode": 0, "Data": None},
        {"StatusCode": 0, "Data": []},
        {"Data": {"Status": "Processed"}},
        [],
        said("Processed", Amount="90"),
        said("Processed", Amount=90.005),
        said("Processed", Amount=True),
        said("Processed", Amount=-5),
        {"StatusCode": "none", "Data": {"Status": "Processed"}},
    ],
)
def test_what_cannot_be_read_is_no_answer(wire: Wire, wired: KaspiQr, answer: Any) -> None:
    wire.say(STATUS, 200, answer)
    with pytest.raises(ProviderError) as unknown:
        wired.fetch(NUMBER)
    assert (unknown.value.permanent, unknown.value.code) == (False, "unreadable")


@pytest.mark.parametrize(
    ("code", "permanent", "undone"),
    [
        (-999, False, False),
        (-99000006, False, False),
        (-12345, False, False),
        (-10000, False, True),
        (-1501, False, True),
        (990000018, False, True),
        (990000028, True, True),
        (-99000005, True, True),
    ],
)
def test_what_a_code_means_for_whoever_asks(
    wire: Wire, wired: KaspiQr, code: int, permanent: bool, undone: bool
) -> None:
    wire.say("POST /r1/v01/qr/create-link", 200, said(code=code))
    with pytest.raises(ProviderError) as refused:
        wired.create({"via": "link", "Amount": 90, "ExternalId": "P-1"}, "key", patient=True)
    assert (refused.value.permanent, refused.value.undone) == (permanent, undone)
    assert refused.value.code == str(code) and not isinstance(refused.value, Missing)
    assert wire.count("POST /r1/v01/qr/create-link") == 1


def test_an_unknown_payment_is_missing_and_an_unknown_address_is_not(wire: Wire, wired: KaspiQr) -> None:
    wire.say(STATUS, 200, said(code=-1601))
    with pytest.raises(Missing):
        wired.fetch(NUMBER)
    with pytest.raises(ProviderError) as unknown:
        # The wire knows nothing of this one: a wrong base, or a gateway.
        wired.fetch("12800000002")
    assert not unknown.value.permanent and not isinstance(unknown.value, Missing)
    wire.say("GET /r1/v02/payment/status/12800000003", 200, said("Wait", QrPaymentId=12800000004))
    with pytest.raises(Anothers):
        wired.fetch("12800000003")


# --- Amounts and times ----------------------------------------------------------------------------------


def test_tenge_go_out_and_tiyn_come_in(wire: Wire, wired: KaspiQr) -> None:
    wanted = wired.params(purchase(wired, amount_minor=900_000))
    assert wanted == {"via": "link", "Amount": 9000, "ExternalId": "P-1"}
    wire.say(
        "POST /r1/v01/qr/create-link", 200, said(PaymentId=12800000001, PaymentLink="https://pay.kaspi.kz/x")
    )
    made = wired.create(wanted, "key")
    assert (made.amount_minor, made.currency, made.provider_id) == (900_000, "KZT", NUMBER)
    assert b'"Amount":9000,' in wire.requests[-1].body.replace(b" ", b"")
    assert wire.requests[-1].headers["api-key"] == "key"
    wire.say(STATUS, 200, b'{"StatusCode": 0, "Data": {"Status": "Processed", "Amount": 9000.30}}')
    assert wired.fetch(NUMBER).amount_minor == 900_030


def test_tiyn_are_refused_unless_the_operator_knows_better(wire: Wire, wired: KaspiQr) -> None:
    assert wired.step_minor("KZT") == 100
    with pytest.raises(ValueError, match="whole tenge"):
        wired.params(purchase(wired, amount_minor=900_050))
    with pytest.raises(ValueError, match="KZT"):
        wired.params(purchase(wired, currency="USD"))
    finer = adapter(kaspi_allow_tiyn=True)
    assert finer.step_minor("KZT") == 1
    assert finer.params(purchase(finer, amount_minor=900_050))["Amount"] == 9000.5


def test_a_fee_with_tiyn_is_not_taken_in_words(app: Flask, sandbox: Sandbox, monkeypatch: Any) -> None:
    KaspiR1Bench(sandbox, monkeypatch)
    event = sold("kaspi", currency="KZT", price_minor=900_050)
    with pytest.raises(DomainError, match="in steps of KZT"):
        place(event)
    config.use(replace(config.get(), kaspi_allow_tiyn=True))
    assert opened(event).params["Amount"] == 9000.5


def test_another_currency_is_not_taken_in_words(app: Flask, sandbox: Sandbox, monkeypatch: Any) -> None:
    KaspiR1Bench(sandbox, monkeypatch)
    dollars = make_event(providers=["kaspi", "stripe"], currency="USD")
    with pytest.raises(DomainError, match="cannot take USD"):
        place(dollars, provider="kaspi")
    # Nor is it what is chosen where nobody chooses.
    assert place(dollars).payments[0].provider == "stripe"


@pytest.mark.parametrize(
    ("told", "moment"),
    [
        ("2126-11-29T12:03:00.717+05:00", datetime(2126, 11, 29, 7, 3, 0, 717000, UTC)),
        ("2126-11-29T12:03:00", datetime(2126, 11, 29, 7, 3, tzinfo=UTC)),
        ("2126-05-16T10:30:00+06:00", datetime(2126, 5, 16, 4, 30, tzinfo=UTC)),
    ],
)
def test_a_code_s_end(wire: Wire, wired: KaspiQr, told: str, moment: datetime) -> None:
    made = said(QrPaymentId=NUMBER, QrToken="5123", ExpireDate=told)
    wire.say("POST /r1/v01/qr/create", 200, made)
    assert wired.create({"via": "qr", "Amount": 90, "ExternalId": "P-1"}, "key").expires_at == moment


@pytest.mark.parametrize(
    "told", [None, "", "soon", 5, "2023-05-16T10:30:00+06:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59"]
)
def test_a_code_whose_end_is_not_told_has_been_made_all_the_same(
    wire: Wire, wired: KaspiQr, told: Any
) -> None:
    wire.say("POST /r1/v01/qr/create", 200, said(QrPaymentId=NUMBER, QrToken="5123", ExpireDate=told))
    made = wired.create({"via": "qr", "Amount": 90, "ExternalId": "P-1"}, "key")
    assert made.expires_at is not None and made.url == "5123"
    assert abs(made.expires_at - clock.now() - timedelta(minutes=3)) < timedelta(seconds=30)
    assert wired.can.lingers == timedelta(minutes=3, seconds=65)


# --- Lost answers ---------------------------------------------------------------------------------------


def test_a_create_whose_answer_is_lost_is_made_once_and_is_not_undone(
    app: Flask, sandbox: Sandbox, monkeypatch: Any
) -> None:
    bench = KaspiR1Bench(sandbox, monkeypatch)
    provider = bench.provider()
    bench.trouble("timeout_after")
    with pytest.raises(ProviderError) as lost:
        provider.create(provider.params(purchase(provider)), "key", patient=True)
    assert (lost.value.undone, lost.value.permanent) == (False, False)
    assert bench.payments() == bench.received() == 1


def test_where_no_connection_stood_nothing_was_done(monkeypatch: pytest.MonkeyPatch, app: Flask) -> None:
    away = adapter(kaspi_api_base=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ProviderError) as unreachable:
        away.create({"via": "link", "Amount": 90, "ExternalId": "P-1"}, "key")
    assert (unreachable.value.undone, unreachable.value.silent) == (True, True)


@pytest.mark.parametrize("data", [{"PaymentLink": "https://pay.kaspi.kz/x"}, {"PaymentId": "x1"}, {}])
def test_an_answer_without_an_id_may_stand_for_a_payment(
    wire: Wire, wired: KaspiQr, data: dict[str, Any]
) -> None:
    wire.say("POST /r1/v01/qr/create-link", 200, said(**data))
    with pytest.raises(ProviderError) as unreadable:
        wired.create({"via": "link", "Amount": 90, "ExternalId": "P-1"}, "key")
    assert (unreadable.value.code, unreadable.value.undone) == ("unreadable", False)


# --- Certificates ---------------------------------------------------------------------------------------


def shown(sandbox: Sandbox, form: str = "r3", **more: Any) -> KaspiQr:
    return kaspi_qr.KaspiQr(kaspi_settings(sandbox, form, **more))


def test_a_certificate_may_be_a_path_or_base64(app: Flask, sandbox: Sandbox, tmp_path: Path) -> None:
    assert shown(sandbox).health()["certificate_ends"] > "2030"
    home = sandbox.home / "sandbox-kaspi"
    facts = shown(sandbox, kaspi_pfx=str(home / "client.pfx"), kaspi_ca=str(home / "ca.pem")).health()
    assert (facts["account"], facts["trade_points"], facts["trade_point_known"]) == ("990140001234", 2, True)
    # A CA as it comes, and a name in base64 that is too long to be a file's.
    pem = (home / "ca.pem").read_text()
    assert shown(sandbox, kaspi_ca=pem.strip()).health()["trade_points"] == 2
    with pytest.raises(ProviderError, match="is no certificate"):
        shown(sandbox, kaspi_ca="a" * 300).health()
    assert shown(sandbox, kaspi_trade_point="7").health()["trade_point_known"] is False


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"kaspi_pfx_password": "wrong"}, "certificate"),
        ({"kaspi_pfx": "bm8gY2VydGlmaWNhdGU="}, "certificate"),
        ({"kaspi_pfx": "/nowhere/kassa.pfx"}, "certificate"),
        ({"kaspi_ca": "bm8gY2VydGlmaWNhdGU="}, "certificate"),
        # The system's list does not know the sandbox's authority.
        ({"kaspi_ca": ""}, "unreachable"),
    ],
)
def test_a_certificate_that_is_none_passes_in_words_without_secrets(
    app: Flask, sandbox: Sandbox, more: dict[str, Any], code: str
) -> None:
    before = len(sandbox.calls())
    with pytest.raises(ProviderError) as broken:
        shown(sandbox, **more).fetch(NUMBER)
    assert (broken.value.permanent, broken.value.code, broken.value.undone) == (False, code, True)
    assert not any(str(value) in str(broken.value) for value in more.values() if value)
    assert len(sandbox.calls()) == before
    settings = kaspi_settings(sandbox, "r3", **more)
    if code != "certificate":
        return kaspi_certificate.check_settings(settings)
    # Nothing could be sold by it, so that it is told as the program starts.
    with pytest.raises(config.ConfigError) as refused:
        kaspi_certificate.check_settings(settings)
    assert str(refused.value) == str(broken.value)
    return None


def test_the_key_is_on_the_disk_for_a_moment_and_encrypted(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[tuple[int, bytes]] = []
    unlink = os.unlink

    def looked_at(path: str) -> None:
        seen.append((stat.S_IMODE(os.stat(path).st_mode), Path(path).read_bytes()))
        unlink(path)

    monkeypatch.setattr(os, "unlink", looked_at)
    assert shown(sandbox).health()["account"]
    ((mode, text),) = seen
    assert mode == 0o600 and b"ENCRYPTED PRIVATE KEY" in text and b"BEGIN PRIVATE KEY" not in text
    assert list(tmp_path.iterdir()) == []


def test_the_way_out_is_the_one_that_is_set(wire: Wire, monkeypatch: pytest.MonkeyPatch, app: Flask) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    wire.say(STATUS, 200, said("Wait"))
    # A proxy of the environment is not asked; the one of the settings is, with the whole address.
    assert adapter(kaspi_api_base=wire.url).fetch(NUMBER).state == "processing"
    through = adapter(kaspi_api_base="http://kaspi.example", kaspi_proxy_url=wire.url)
    with pytest.raises(ProviderError):
        through.fetch(NUMBER)
    assert wire.requests[-1].path == f"http://kaspi.example/r1/v02/payment/status/{NUMBER}"


def test_registering_a_device(app: Flask, sandbox: Sandbox, monkeypatch: Any) -> None:
    runner = app.test_cli_runner()
    assert "Kaspi is not set up" in runner.invoke(args=["kaspi", "trade-points"]).output
    config.use(kaspi_settings(sandbox, "r3", kaspi_device_token="", kaspi_device_id="till-9"))
    assert not registry.get("kaspi").ready
    assert "1001" in runner.invoke(args=["kaspi", "trade-points"]).output
    printed = runner.invoke(args=["kaspi", "register-device"]).output.strip()
    name, _, token = printed.partition("=")
    assert name == "KASPI_DEVICE_TOKEN" and token
    config.use(replace(config.get(), kaspi_device_token=token))
    assert registry.get("kaspi").ready
    assert opened(sold("kaspi", currency="KZT")).provider_id
    config.use(replace(config.get(), kaspi_trade_point="1002"))
    refused = runner.invoke(args=["kaspi", "register-device"])
    assert refused.exit_code == 1 and "-1503" in refused.output


# --- Through the domain ---------------------------------------------------------------------------------


def bought(form: str, sandbox: Sandbox, **more: Any) -> Payment:
    """An open payment of 9,000 tenge in one form of the API."""
    config.use(kaspi_settings(sandbox, form, **more))
    return opened(sold("kaspi", currency="KZT", price_minor=900_000))


def incident() -> Incident:
    return db.session.query(Incident).one()


def test_a_code_is_paid_and_buys(app: Flask, sandbox: Sandbox) -> None:
    payment = bought("r1", sandbox)
    assert payment.url and payment.expires_at and payment.method == "kaspi_qr"
    assert payment.expires_at - clock.now() < timedelta(minutes=3, seconds=5)
    sandbox.do(payment.provider_id or "", "pay")
    assert reconciling.reconcile(payment.id, door="test").verdict == "verified"
    assert again(payment).fulfilled and again(payment).received_minor == 900_000
    assert transfers.balance(transfers.provider_account("kaspi", payment.account), "KZT") == -900_000
    assert invariants.look() == []


def test_a_lost_create_goes_to_a_person_and_is_never_made_again(app: Flask, sandbox: Sandbox) -> None:
    config.use(kaspi_settings(sandbox, "r1"))
    order = place(sold("kaspi", currency="KZT"))
    sandbox.faults("timeout_after", times=1, match={"path": "/qr/create"}, seconds=0.2)
    starting.open_at_provider(order)
    sandbox.faults()
    payment = again(order.payments[0])
    assert payment.state is PaymentState.REVIEW
    for _ in range(3):
        sandbox.advance(600)
        sweeping.run("test")
    assert again(payment).state is PaymentState.REVIEW and not again(payment).provider_id
    assert len(sandbox.get("payments")) == 1


def test_a_code_that_nobody_scans_ends_after_its_lingering_and_frees_the_place(
    app: Flask, sandbox: Sandbox
) -> None:
    payment = bought("r1", sandbox, kaspi_status_map=())
    sandbox.advance(3 * 60 + 200)
    assert reconciling.reconcile(payment.id, door="sweep").verdict == "still_pending"
    sandbox.advance(60)
    # Kaspi goes on saying that the code was made: the last reading after its end decides.
    assert reconciling.reconcile(payment.id, door="sweep").verdict == "failed"
    assert again(payment).state is PaymentState.EXPIRED
    # Paid all the same, it is late money, which is money.
    sandbox.do(payment.provider_id or "", "pay", force=True)
    assert reconciling.reconcile(payment.id, door="sweep").state is PaymentState.PAID


@pytest.mark.parametrize("form", ["r1", "r3"])
def test_another_amount_is_for_a_person(app: Flask, sandbox: Sandbox, form: str) -> None:
    payment = bought(form, sandbox)
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.do(payment.provider_id or "", "tamper", set={"amount_minor": 90_000})
    assert reconciling.reconcile(payment.id, door="test").verdict == "review"
    assert incident().amount_minor == 90_000 and not again(payment).fulfilled


def test_an_amount_that_is_not_told_is_for_a_person_in_r1_and_read_in_r3(
    app: Flask, sandbox: Sandbox
) -> None:
    payment = bought("r1", sandbox)
    sandbox.post("settings", {"kaspi": {"tells_amount": False}})
    sandbox.do(payment.provider_id or "", "pay")
    assert reconciling.reconcile(payment.id, door="test").verdict == "review"
    # What was asked for waits to be decided about, and is accepted by whoever has looked it up.
    waits = incident()
    assert (waits.amount_minor, waits.evidence["what"]) == (900_000, "amount (not told)")
    assert invariants.look() == []
    incident_decisions.resolve(waits.id, how="issue", reason="Kaspi's app shows 9,000", actor_id=None)
    assert again(payment).state is PaymentState.PAID and again(payment).fulfilled
    # Read again, it is still not told, and stays decided.
    assert reconciling.reconcile(payment.id, door="test").verdict == "verified"
    assert db.session.query(Incident).count() == 1 and invariants.look() == []


def test_r3_reads_what_the_status_does_not_tell(app: Flask, sandbox: Sandbox) -> None:
    payment = bought("r3", sandbox)
    sandbox.post("settings", {"kaspi": {"tells_amount": False}})
    sandbox.do(payment.provider_id or "", "pay")
    assert reconciling.reconcile(payment.id, door="test").verdict == "verified"
    assert again(payment).provider_paid_at is not None and again(payment).received_minor == 900_000


def test_an_amount_that_cannot_be_read_yet_is_waited_for(app: Flask, sandbox: Sandbox) -> None:
    payment = bought("r3", sandbox)
    sandbox.post("settings", {"kaspi": {"tells_amount": False}})
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.faults("http_500", match={"path": "/payment/details$"})
    assert reconciling.reconcile(payment.id, door="test").verdict == "error"
    assert again(payment).state is PaymentState.OPEN
    sandbox.faults()
    assert reconciling.reconcile(payment.id, door="test").verdict == "verified"


def test_two_answers_that_contradict_each_other_match_nothing(
    wire: Wire, app: Flask, sandbox: Sandbox
) -> None:
    strange = shown(sandbox, "r2", kaspi_api_base=wire.url)
    wire.say(STATUS.replace("r1", "r2"), 200, said("Processed", Amount=90.0))
    details = said(QrPaymentId=int(NUMBER), TotalAmount=100.0, AvailableReturnAmount=100.0)
    wire.say("GET /r2/v01/payment/details", 200, details)
    told: Report = strange.fetch(NUMBER)
    assert told.untold == frozenset() and "9000 tiyn" in told.reference


def paid(form: str, sandbox: Sandbox) -> Payment:
    payment = bought(form, sandbox)
    sandbox.do(payment.provider_id or "", "pay")
    assert reconciling.reconcile(payment.id, door="test").verdict == "verified"
    return again(payment)


def test_refunds_of_which_only_the_sum_is_told(app: Flask, sandbox: Sandbox) -> None:
    payment = paid("r3", sandbox)
    refunds.request(payment.id, 100_000, actor_id=None, reason="Asked for")
    assert [r.state for r in again(payment).refunds] == [RefundState.SUCCEEDED]
    # One whose answer was lost is told by the sum, and no second one is made.
    sandbox.faults("timeout_after", times=1, match={"method": "POST", "path": "^/kaspi/"}, seconds=0.2)
    lost = refunds.request(payment.id, 200_000, actor_id=None, reason="Again")
    sandbox.faults()
    refunds.follow_up(lost.id, patient=True)
    assert [r.state for r in again(payment).refunds] == [RefundState.SUCCEEDED] * 2
    assert sandbox.get(f"payments/{payment.provider_id}")["refunded_minor"] == 300_000
    # And one that the cashier made is mirrored, once.
    sandbox.do(payment.provider_id or "", "refund", amount_minor=50_000)
    for _ in range(2):
        assert reconciling.reconcile(payment.id, door="test", thorough=True).verdict == "verified"
    made = again(payment).refunds
    assert [(r.amount_minor, r.made_at_provider) for r in made] == [
        (100_000, False),
        (200_000, False),
        (50_000, True),
    ]
    sandbox.do(payment.provider_id or "", "refund", amount_minor=550_000)
    reconciling.reconcile(payment.id, door="test", thorough=True)
    assert again(payment).order.state is OrderState.REFUNDED
    assert invariants.look() == []


def test_a_callback_only_makes_us_ask(app: Flask, client: FlaskClient, sandbox: Sandbox) -> None:
    payment = bought("r1", sandbox)
    ring = "/api/v1/payments/webhooks/kaspi"
    told = {"QrPaymentId": payment.provider_id, "Status": "Processed", "Amount": 9000}
    assert client.post(ring, json=told).status_code == 200
    assert again(payment).state is PaymentState.OPEN
    sandbox.do(payment.provider_id or "", "pay")
    # Somebody asked just now: it is to come again.
    assert client.post(ring, json={"externalId": payment.reference}).status_code == 429
    again(payment).last_polled_at = None
    db.session.commit()
    assert client.post(ring, json={"externalId": payment.reference}).status_code == 200
    assert again(payment).state is PaymentState.PAID
    for body in (b"", b"[]", b'{"QrPaymentId": [1]}', b'{"Status": "Processed"}'):
        assert client.post(ring, data=body).status_code == 400
    config.use(replace(config.get(), kaspi_mode=""))
    assert client.post(ring, json=told).status_code == 404


def test_where_it_is_not_set_up_nothing_is_offered(app: Flask) -> None:
    provider = registry.get("kaspi")
    assert not provider.ready and kaspi.build(config.get()).ready is False
    assert kaspi_line.API.startswith("https://")
    with pytest.raises(DomainError):
        place(sold("kaspi", currency="KZT"))
