"""What is written down: one JSON line a request, and never a secret, a card or an order's link."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import structlog
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

import config
import logs
from domain import clock
from domain.payments import reconciling, settling, starting
from domain.post import outbox
from domain.providers import registry
from domain.sweep import sweeping
from extensions import db
from models import Athlete, Event, User
from tests.support.people import log_in, make_member
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.tills import Till
from tests.support.tournaments import make_athlete

CARD = "4242424242424242"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def requests(text: str) -> list[dict[str, Any]]:
    return [line for line in lines(text) if line["event"] == "request"]


def test_a_request_has_an_id_which_is_answered(
    client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    own = client.get("/livez", headers={"X-Request-ID": "from-the-host-17"})
    assert own.headers["X-Request-ID"] == "from-the-host-17"
    strange = client.get("/livez", headers={"X-Request-ID": "<script>alert(1)</script>"})
    assert re.fullmatch("[0-9a-f]{32}", strange.headers["X-Request-ID"])
    first, second = requests(capsys.readouterr().out)
    assert first["request"] == "from-the-host-17"
    assert (second["method"], second["path"], second["status"]) == ("GET", "/livez", 200)
    assert second["ms"] > 0


def test_an_orders_line_has_its_code_and_not_its_secret(
    app: Flask, client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    order = place(make_event(), 1)
    for path in (f"/o/{order.code}/{order.secret}", f"/o/{order.code}/{order.secret}.json"):
        client.get(path)
    client.get(f"/o/{order.code}/{order.secret}/nothing/here")
    client.get(f"/pay/success/{order.code}/{order.secret}?session_id=cs_test_1")
    out = capsys.readouterr().out
    assert order.secret not in out
    found = requests(out)
    assert len(found) == 4
    assert found[0]["path"].startswith(f"/o/{order.code}/***")
    assert found[0]["order"] == order.code


def test_what_happens_to_an_order_is_found_by_its_codes(
    app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    order = place(make_event(), 1)
    payment = order.payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="sweep")
    noted = [line for line in lines(capsys.readouterr().out) if line["event"] == "noted"]
    assert noted[-1]["what"] == "open"
    assert (noted[-1]["order"], noted[-1]["payment"]) == (order.code, payment.reference)
    assert noted[-1]["door"] == "sweep"


def test_the_member_is_named_by_number(client: FlaskClient, capsys: pytest.CaptureFixture[str]) -> None:
    user = make_member()
    log_in(client)
    client.get("/account/")
    assert requests(capsys.readouterr().out)[-1]["user"] == user.id


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (f"card {CARD} refused", "card *** refused"),
        ("4242 4242 4242 4242", "***"),
        ("4000-0000-0000-0002", "***"),
        ("order 4242424242424241", "order 4242424242424241"),
        ("sk_test_51abcdefghijk used", "*** used"),
        ("sup_sk_51abcdefghijk and cc_sk_51abcdefghijk", "*** and ***"),
        ("at_classic_abcdefghij for rt_classic_abcdefghij", "*** for ***"),
        (f"kassa_7rq2m4xp_{'aB3_-' * 8} and refresh_{'aB3_-' * 8}", "*** and ***"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl back", "got *** back"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("postgresql://kassa:pass@db/kassa", "postgresql://***@db/kassa"),
        ("see http://localhost/o/ORD-ABCDEFGH/sEcReT-1 now", "see http://localhost/o/ORD-ABCDEFGH/*** now"),
        ("see http://localhost/account/reset/s3cret?a=b", "see http://localhost/account/reset/***?a=b"),
        ("/account/confirm/s3cret or /account/login", "/account/confirm/*** or /account/login"),
        ("/door/s3cret/enter and /door/events/jazz/leave", "/door/***/enter and /door/events/jazz/leave"),
        (
            f"Client disconnected while serving /x/{'aB3_-' * 5}/y",
            "Client disconnected while serving /x/***/y",
        ),
        (f"Exception while serving /o/K7/{'aB3_-' * 5}", "Exception while serving /o/K7/***"),
        (f"Exception on /x/{'aB3_-' * 5} [GET]", "Exception on /x/*** [GET]"),
        ("a-secret-for-tests-only", "***"),
    ],
)
def test_texts_are_cleaned(app: Flask, said: str, written: str) -> None:
    redact = logs.Redactor(config.get())
    assert redact(None, "info", {"event": said, "deep": {"er": [said]}}) == {
        "event": written,
        "deep": {"er": [written]},
    }


@pytest.mark.parametrize(
    "name",
    ["password", "stripe_secret_key", "api_key", "token", "Authorization", "card", "cvc", "session_id"],
)
def test_names_that_hold_secrets_are_hidden(app: Flask, name: str) -> None:
    assert logs.Redactor(config.get())(None, "info", {name: "whatever"}) == {name: "***"}


def test_no_secret_of_the_settings_is_written(app: Flask) -> None:
    """Whatever their names are: each that is not shown with the settings is not shown in a line."""
    hidden = {field.name for field in fields(config.Settings) if not field.repr}
    # Addresses are hidden where their password is.
    rings = {"token_keys", "secret_keys_rotated", "secret_keys_revoked"}
    hidden -= {"database_url", "redis_url", *rings}
    values: dict[str, Any] = {name: f"hidden-{name}" for name in hidden}
    keys: dict[str, Any] = {name: (f"first-of-{name}", f"second-of-{name}") for name in rings}
    settings = replace(config.get(), **values, **keys)
    told = logs.Redactor(settings)(
        None,
        "info",
        {"event": " ".join((*values.values(), *(key for ring in keys.values() for key in ring)))},
    )
    assert set(str(told["event"]).split()) == {"***"}
    # A proxy's password by itself, too: as it is written in the address, and as it is meant.
    proxied = replace(settings, kaspi_proxy_url="http://kassa:let-me%40out@proxy.example:3128")
    said = logs.Redactor(proxied)(None, "info", {"event": "let-me%40out let-me@out proxy.example:3128"})
    assert said["event"] == "*** *** proxy.example:3128"


def test_numbers_that_are_cards_are_hidden_and_others_stay(app: Flask) -> None:
    told = logs.Redactor(config.get())(
        None, "info", {"a": int(CARD), "b": 17, "c": 1.5, "d": None, "keys": 3}
    )
    assert told == {"a": "***", "b": 17, "c": 1.5, "d": None, "keys": 3}


def test_exceptions_and_foreign_loggers_are_cleaned_too(
    app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        raise ValueError(f"no such card {CARD}")
    except ValueError:
        structlog.get_logger("test").exception("failed")
    logging.getLogger("somebody.else").warning("key %s", config.get().stripe_secret_key)
    out = capsys.readouterr().out
    assert CARD not in out
    assert config.get().stripe_secret_key not in out
    assert [line["event"] for line in lines(out)] == ["failed", "key ***"]


def test_a_refused_row_is_not_written_down(app: Flask, capsys: pytest.CaptureFixture[str]) -> None:
    born = date(2016, 3, 1)
    child = make_athlete(make_member(), "Cho Child", birth_date=born)
    for change in ({"weight_g": 0}, {"birth_date": None}):
        try:
            db.session.execute(update(Athlete).where(Athlete.birth_date == born).values(change))
        except IntegrityError:
            structlog.get_logger("test").exception("failed")
            db.session.rollback()
    again = {"email": "ann@example.org", "name": "Ann", "role": "buyer", "created_at": clock.now()}
    try:
        db.session.execute(insert(User).values(again | {"password_hash": "", "login_epoch": 0}))
    except IntegrityError:
        structlog.get_logger("test").exception("failed")
        db.session.rollback()
    out = capsys.readouterr().out
    assert len(lines(out)) == 3 and "athletes" in out
    assert "Cho Child" not in out and "2016" not in out and "ann@example.org" not in out, child.name


def test_the_file_rotates_and_is_shared(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 4000)
    path = tmp_path / "deep" / "kassa.log"
    path.parent.mkdir()
    first, second = logs.SharedRotatingFile(str(path)), logs.SharedRotatingFile(str(path))
    for number in range(200):
        record = logging.LogRecord("x", logging.INFO, "", 0, f"line {number:03} " + "x" * 40, (), None)
        (first, second)[number % 2].handle(record)
    first.close()
    second.close()
    kept = [line for file in path.parent.glob("kassa.log*") for line in file.read_text().splitlines()]
    assert len(kept) == len(set(kept))
    assert path.stat().st_size <= 4100
    newest = sorted(int(line[5:8]) for line in kept)
    assert newest == list(range(newest[0], 200))


def test_log_file_is_written_when_it_is_set(app: Flask, client: FlaskClient, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "kassa.log"
    before = config.get()
    logs.configure(replace(before, log_file=str(path)))
    try:
        client.get("/livez")
    finally:
        logs.configure(before)
    assert json.loads(path.read_text().splitlines()[-1])["path"] == "/livez"


def test_a_log_file_that_cannot_be_written_does_not_stop_the_shop(
    app: Flask, client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    before = config.get()
    logs.configure(replace(before, log_file="/proc/nowhere/kassa.log"))
    try:
        assert client.get("/livez").status_code == 200
    finally:
        logs.configure(before)
    assert "cannot be written" in capsys.readouterr().err


def test_each_question_has_a_line(
    client: FlaskClient, sandbox: Sandbox, till: Till, capsys: pytest.CaptureFixture[str]
) -> None:
    """The payment, what the provider said in its own words, the amount, and the door."""
    order = place(make_event(providers=[till.name]), provider=till.name)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.provider_id is not None
    told = sandbox.do(payment.provider_id, "pay")
    client.get(told["success_url"].removeprefix("http://localhost"))
    tag = f"[{till.name.upper()} DEBUG] asked"
    opened, paid = (line for line in lines(capsys.readouterr().out) if line["event"] == tag)
    assert (opened["door"], opened["state"], paid["door"], paid["state"]) == (
        *("checkout", "open"),
        *("success", "paid"),
    )
    for line in (opened, paid):
        assert (line["payment"], line["amount_minor"], line["currency"]) == (payment.reference, 2500, "EUR")
    assert ("paid" in paid["status"].lower(), "paid" in opened["status"].lower().split("/")) == (True, False)
    sandbox.faults("http_500", match={"path": till.api})
    reconciling.reconcile(payment.id, door="command")
    silent = [line for line in lines(capsys.readouterr().out) if line["event"] == tag]
    assert [(line["status"], line["door"]) for line in silent] == [("no answer", "command")]
    assert silent[0]["error"]
    config.use(replace(config.get(), development=False))
    sandbox.faults()
    reconciling.reconcile(payment.id, door="command")
    assert [line["event"] for line in lines(capsys.readouterr().out) if "status" in line] == ["asked"]


def test_a_sweep_s_questions_have_lines(
    app: Flask, sandbox: Sandbox, till: Till, capsys: pytest.CaptureFixture[str]
) -> None:
    event_id = make_event(providers=[till.name]).id
    for _ in range(4):
        starting.open_at_provider(place(db.session.get_one(Event, event_id), provider=till.name))
    capsys.readouterr()
    sweeping.run("command")
    asked = [line for line in lines(capsys.readouterr().out) if line["event"].endswith("asked")]
    # A list is one question about many.
    listed = registry.get(till.name).pages(clock.now(), clock.now()) is not None
    assert [line["door"] for line in asked] == ["sweep"] * (1 if listed else 4)
    assert asked[0].get("payments") == (4 if listed else None)


def test_an_alert_s_kind_is_readable(app: Flask, capsys: pytest.CaptureFixture[str]) -> None:
    outbox.alert("Something", "It happened.", key="incident:late_money:17", critical=True)
    (line,) = (line for line in lines(capsys.readouterr().out) if line["event"] == "alert")
    assert (line["kind"], line["about"], line["critical"]) == ("incident", "late_money:17", True)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("paid by pi_3AbC_secret_Xy1zXy1z", "paid by ***"),
        ("?payment_intent_client_secret=pi_3AbC_secret_Xy1z&x=1", "?payment_intent_client_secret=***&x=1"),
        ("cs_test_a1B2_secret_fid1", "***"),
        ("/pay/wallet/ORD-7KQ2MPXA-1/0123abcd/done", "/pay/wallet/ORD-7KQ2MPXA-1/***/done"),
        ("pi_3AbC", "pi_3AbC"),
    ],
)
def test_what_pays_a_payment_is_taken_out(app: Flask, said: str, kept: str) -> None:
    assert logs.Redactor(config.get())(None, "info", {"event": said})["event"] == kept
