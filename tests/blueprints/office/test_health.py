"""/livez, /healthz, /metrics, and the alarm that the web process raises when nobody sweeps."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from time import monotonic

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

import config
from blueprints.office.health import REQUEST_METRICS, watch_sweeps
from domain import clock, heartbeat
from domain.office import health, metrics
from domain.payments import reconciling, starting
from extensions import db, queue
from models import CheckRun, Event, Incident, MailState, OutboxMail, Role, SweepRun
from tests.support.people import log_in, make_member
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place
from tests.support.tills import Till


@pytest.fixture(autouse=True)
def long_running(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that began an hour ago, and an alarm that has not looked yet."""
    monkeypatch.setattr(health._Process, "began", clock.now() - timedelta(hours=1))
    monkeypatch.setattr(health, "alarm", health.SweepAlarm())


def swept(ago: timedelta = timedelta()) -> None:
    at = clock.now() - ago
    db.session.add(SweepRun(trigger="test", started_at=at, finished_at=at, error="", found=3, verified=2))
    db.session.commit()


def everything_well() -> None:
    swept()
    heartbeat.beat("worker")
    heartbeat.beat("clock")
    db.session.add(CheckRun(at=clock.now(), violations=[]))
    db.session.commit()


def state_of(client: FlaskClient, part: str) -> str:
    return str(client.get("/healthz").get_json()["checks"][part]["state"])


def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    monkeypatch.setattr(db.session, "execute", refuse)


def test_livez(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/livez").status_code == 200
    no_database(monkeypatch)
    assert client.get("/livez").status_code == 503


def test_healthz_is_ok_when_all_is_well(client: FlaskClient) -> None:
    everything_well()
    answer = client.get("/healthz")
    assert answer.status_code == 200
    told = answer.get_json()
    assert told["status"] == "ok"
    assert {check["state"] for check in told["checks"].values()} == {"ok"}
    assert set(told["checks"]) == {
        *("database", "transactions", "redis", "worker", "clock", "sweep", "outbox", "incidents"),
        *("rings", "connections", "accounts", "invariants", "backup"),
    }


def test_healthz_is_503_only_without_the_database(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.bind("redis://127.0.0.1:1/0")
    try:
        answer = client.get("/healthz")
    finally:
        queue.bind(config.get().redis_url)
    assert (answer.status_code, answer.get_json()["status"]) == (200, "degraded")
    assert answer.get_json()["checks"]["redis"]["state"] == "degraded"
    no_database(monkeypatch)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.get_json()["status"]) == (503, "down")


def test_an_instance_before_its_first_sweep_is_starting(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health._Process, "began", clock.now())
    assert client.get("/healthz").get_json()["status"] == "starting"
    # An earlier release's last sweep is no reason to call a new one failed at once.
    swept(timedelta(hours=5))
    assert state_of(client, "sweep") == "starting"
    monkeypatch.setattr(health._Process, "began", clock.now() - timedelta(hours=1))
    assert state_of(client, "sweep") == "degraded"


def test_three_intervals_without_a_sweep(client: FlaskClient) -> None:
    interval = timedelta(seconds=config.get().sweep_interval)
    swept(interval * 2)
    assert state_of(client, "sweep") == "ok"
    db.session.query(SweepRun).delete()
    swept(interval * 4)
    assert state_of(client, "sweep") == "degraded"


def test_what_degrades(client: FlaskClient) -> None:
    everything_well()
    now = clock.now()
    mail = {"kind": "test", "to": "a@example.org", "context": {}, "attempts": 1, "last_error": ""}
    db.session.add(OutboxMail(key="1", message_id="1", state=MailState.FAILED, created_at=now, **mail))
    db.session.add(
        CheckRun(at=now + timedelta(seconds=1), violations=[{"code": "x", "words": "", "sample": []}])
    )
    old = {"amount_minor": 1, "currency": "EUR", "evidence": {}, "created_at": now - timedelta(days=2)}
    db.session.add(Incident(key="1", kind="late_money", **old))
    db.session.commit()
    for part in ("outbox", "invariants", "incidents"):
        assert state_of(client, part) == "degraded"
    assert client.get("/healthz").status_code == 200


# --- Metrics --------------------------------------------------------------------------------------------


def numbers(client: FlaskClient) -> dict[str, float]:
    """Every sample by its name and labels."""
    metrics._Kept.until = 0.0
    text = client.get("/metrics").text
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_tell_the_business(client: FlaskClient) -> None:
    place(make_event(), 1)
    swept()
    told = numbers(client)
    assert told["kassa_payments provider=stripe state=created"] == 1
    assert told["kassa_orders state=pending"] == 1
    assert told["kassa_outbox state=due"] == 1
    assert told["kassa_incidents_open"] == 0
    assert told["kassa_sweep_payments outcome=verified"] == 2
    assert told["kassa_sweep_age_seconds"] >= 0


def test_metrics_count_requests_by_endpoint_not_by_path(client: FlaskClient) -> None:
    client.get("/o/ORD-AAAAAAAA/some-secret-of-an-order")
    text = client.get("/metrics").text
    assert re.search(r'kassa_http_requests_total\{endpoint="[a-z_.]+",method="GET",status="404"\}', text)
    assert "some-secret" not in text


def test_every_metric_is_there(client: FlaskClient) -> None:
    text = client.get("/metrics").text
    for name in (*REQUEST_METRICS, *(metric.name for metric in metrics.METRICS)):
        assert f"# HELP {name} " in text or f"# HELP {name.removesuffix('_total')}" in text


def test_in_production_metrics_need_the_token_or_an_admin(app: Flask, client: FlaskClient) -> None:
    config.use(replace(config.get(), development=False))
    assert client.get("/metrics").status_code == 404
    config.use(replace(config.get(), metrics_token="a-token-for-prometheus"))
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 404
    right = {"Authorization": "Bearer a-token-for-prometheus"}
    assert client.get("/metrics", headers=right).status_code == 200
    make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    assert boss.get("/metrics").status_code == 200


# --- The dead man's switch ------------------------------------------------------------------------------


def alarms() -> list[OutboxMail]:
    query = select(OutboxMail).where(OutboxMail.key.like("sweep-stopped:%")).order_by(OutboxMail.id)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def look_twice(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks, some minutes of real time apart."""
    watch_sweeps(app)
    real = monotonic
    monkeypatch.setattr(health, "monotonic", lambda: real() + 600)
    watch_sweeps(app)
    monkeypatch.setattr(health, "monotonic", real)


def test_a_stopped_sweep_is_told_once_by_the_web_process(
    app: Flask, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    place(make_event(), 1)
    swept(timedelta(hours=1))
    look_twice(app, monkeypatch)
    look_twice(app, monkeypatch)
    (alarm,) = alarms()
    assert alarm.state is MailState.SENT
    (mail,) = sandbox.mail("alerts@example.org")
    assert mail["subject"] == "[Kassa CRITICAL] Payments are not being checked"
    # It delivered that one and left the buyer's mail to the worker.
    assert sandbox.mail("ada@example.org") == []


def test_the_next_stop_is_told_again(app: Flask, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    swept(timedelta(hours=2))
    look_twice(app, monkeypatch)
    swept(timedelta(hours=1))
    look_twice(app, monkeypatch)
    assert len(alarms()) == 2


def test_one_late_look_is_not_enough(app: Flask) -> None:
    """A clock that jumps, or a computer that slept, makes a sweep look late until the next one has run."""
    swept(timedelta(hours=1))
    watch_sweeps(app)
    swept()
    watch_sweeps(app)
    assert alarms() == []


def test_it_is_tried_again_when_mail_does_not_leave(
    app: Flask, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    swept(timedelta(hours=1))
    sandbox.faults("smtp_refuse", seed=1, rate=1)
    look_twice(app, monkeypatch)
    assert [alarm.state for alarm in alarms()] == [MailState.DUE]
    sandbox.faults()
    db.session.execute(db.text("UPDATE outbox SET next_attempt_at = created_at, leased_until = NULL"))
    db.session.commit()
    look_twice(app, monkeypatch)
    assert [alarm.state for alarm in alarms()] == [MailState.SENT]


def test_it_looks_at_most_once_a_minute(app: Flask) -> None:
    alarm = health.SweepAlarm()
    assert [alarm.due() for _ in range(5)] == [True, False, False, False, False]


def test_the_share_of_sweeps_that_worked(app: Flask) -> None:
    def share() -> list[float]:
        return [each.number for each in metrics.read(fresh=True) if each.metric is metrics.SWEEPS_WORKED]

    assert share() == []
    for ago in (1, 2, 3):
        swept(timedelta(hours=ago))
    swept(timedelta(hours=30))
    assert share() == [1.0]
    now = clock.now()
    # One ended in an error, one died without a word, and one is at work.
    db.session.add(SweepRun(trigger="test", started_at=now - timedelta(hours=2), error="OSError: disk"))
    db.session.add(SweepRun(trigger="test", started_at=now - timedelta(hours=4), error=""))
    db.session.add(SweepRun(trigger="test", started_at=now - timedelta(seconds=20), error=""))
    db.session.commit()
    assert share() == [3 / 5]


def test_the_time_from_payment_to_tickets(app: Flask, sandbox: Sandbox, till: Till) -> None:
    def waited() -> dict[str, float]:
        found = metrics.read(fresh=True)
        return {each.values[0]: each.number for each in found if each.metric is metrics.TO_TICKETS}

    assert waited() == {}
    event_id = make_event(providers=[till.name], capacity=20).id
    for minutes in (0, 0, 4):
        order = place(db.session.get_one(Event, event_id), provider=till.name)
        payment = starting.open_at_provider(order)
        assert payment is not None and payment.provider_id is not None
        sandbox.do(payment.provider_id, "pay")
        if minutes:
            # They closed the tab, and a sweep found them.
            sandbox.advance(minutes * 60)
        reconciling.reconcile(payment.id, door="test")
    told = waited()
    assert set(told) == {"0.5", "0.95", "1"}
    assert told["0.5"] < 30 and 240 <= told["1"] < 300
