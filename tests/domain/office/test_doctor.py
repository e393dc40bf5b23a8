"""The doctor: a sound installation, and each thing that can be wrong with one, in words with the fix."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask, current_app

import config
from domain import clock, heartbeat, jobs
from domain.office import database_connections, doctor, wallet_buttons
from domain.office.doctor import Finding
from domain.providers import registry
from extensions import db, queue
from models import Heartbeat, Role, SweepRun
from tests.support.benches import KaspiR3Bench, SumUpBench
from tests.support.people import make_member
from tests.support.sandbox import Sandbox

_SUMUP = {"sumup_api_key": "sup_sk_1", "sumup_merchant_code": "MC1", "sumup_api_base": "http://127.0.0.1:9"}
_NONE = dict.fromkeys(("sumup_api_key", "sumup_client_id", "sumup_client_secret"), "")


def found(code: str, scheduled: tuple[str, ...] = ()) -> Finding:
    return next(finding for finding in doctor.findings(scheduled) if finding.code == code)


def change(**settings: Any) -> None:
    config.use(replace(config.get(), **settings))


@pytest.fixture
def sound(app: Flask) -> Iterator[None]:
    """An installation with an admin, whose worker, clock and sweep were just there."""
    make_member("boss@example.org", role=Role.ADMIN)
    heartbeat.beat("worker")
    heartbeat.beat("clock")
    now = clock.now()
    db.session.add(SweepRun(trigger="test", started_at=now, finished_at=now, error=""))
    db.session.commit()
    queue.redis.zadd(jobs.SCHEDULED, {"kassa-sweep": 1})
    yield
    queue.bind(config.get().redis_url)


def test_a_sound_installation_has_no_failure(sound: None) -> None:
    change(admin_email="boss@example.org")
    findings = doctor.findings(["kassa-sweep"])
    assert [f for f in findings if f.state != doctor.OK] == []
    assert len({f.code for f in findings}) == len(findings)
    assert not doctor.failed(findings)


def test_it_never_shows_a_secret(sound: None) -> None:
    settings = config.get()
    text = json.dumps([vars(f) for f in doctor.findings()])
    for secret in (settings.secret_key, settings.stripe_secret_key, settings.stripe_webhook_secret):
        assert secret not in text


@pytest.mark.parametrize(
    ("settings", "code", "state", "words"),
    [
        (
            {"stripe_secret_key": "", **_NONE},
            "stripe_keys",
            doctor.FAIL,
            "nothing that costs money is sold",
        ),
        ({"development": False}, "stripe_keys", doctor.WARN, "without real money"),
        ({"stripe_secret_key": "", **_SUMUP}, "stripe_keys", doctor.OK, "paid through SumUp"),
        (_SUMUP, "sumup_account", doctor.OK, "MC1, an account for tests"),
        ({"sumup_test_account": False, **_SUMUP}, "sumup_account", doctor.OK, "move real money"),
        ({"development": False, **_SUMUP}, "sumup_account", doctor.WARN, "without real money"),
        ({}, "listing_fee", doctor.OK, "publish events for nothing"),
        ({"listing_fee": Decimal("12.50")}, "listing_fee", doctor.OK, "costs €12.50, paid by "),
        ({"listing_fee": Decimal("0.01")}, "listing_fee", doctor.FAIL, "costs €0.01, which no way to pay"),
        ({"stripe_webhook_secret": ""}, "webhook_secret", doctor.WARN, "still verified on return"),
        ({"mail_server": "", "mail_api_key": ""}, "mail", doctor.FAIL, "No way to send mail"),
        ({"mail_server": "mail.example.org"}, "mail", doctor.WARN, "go there in clear"),
        ({"development": False}, "public_url", doctor.FAIL, "would lead to http://localhost"),
        (
            {"development": False, "public_url": "http://kassa.example.org"},
            "public_url",
            doctor.FAIL,
            "is not encrypted",
        ),
    ],
)
def test_settings(sound: None, settings: dict[str, Any], code: str, state: str, words: str) -> None:
    change(**settings)
    finding = found(code)
    assert (finding.state, words in finding.words) == (state, True), finding
    assert finding.fix or state == doctor.OK


def test_a_mail_server_that_is_not_there(sound: None, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.extensions["mail"], "port", 1)
    finding = found("mail")
    assert finding.state == doctor.FAIL
    assert "would not leave" in finding.words
    assert app.test_cli_runner().invoke(args=["mail", "test", "ops@example.org"]).exit_code == 1


def test_a_silent_provider(sound: None, sandbox: Sandbox) -> None:
    sandbox.faults("http_500", seed=1, rate=1)
    finding = found("stripe_reachable")
    assert finding.state == doctor.FAIL
    assert "No usable answer" in finding.words


def test_an_account_that_may_not_charge(sound: None, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"account": "acct_1", "mode": "test", "api_version": "1", "charges_enabled": False}
    monkeypatch.setattr(type(registry.get("stripe")), "health", lambda self: facts)
    assert found("stripe_reachable").state == doctor.FAIL


@pytest.fixture
def sumup(sound: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> SumUpBench:
    """The sandbox's SumUp beside Stripe."""
    return SumUpBench(sandbox, monkeypatch)


def test_sumup_is_looked_at_too(sumup: SumUpBench) -> None:
    finding = found("sumup_reachable")
    assert (finding.state, finding.title) == (doctor.OK, "Connection to SumUp")
    assert finding.words == "Account MKASSA01, test mode."
    assert [f.code for f in doctor.findings()].count("clock_skew") == 1
    text = json.dumps([vars(f) for f in doctor.findings()])
    assert not any(secret in text for secret in sumup.secrets)
    sumup.trouble("http_500")
    assert found("sumup_reachable").state == doctor.FAIL


def test_sumup_alone_is_enough(sumup: SumUpBench) -> None:
    change(stripe_secret_key="", stripe_publishable_key="", admin_email="boss@example.org")
    queue.redis.zadd(jobs.SCHEDULED, {"kassa-sweep": 1})
    assert found("clock_skew").words == "It agrees with SumUp's."
    assert not doctor.failed(doctor.findings(["kassa-sweep"]))


def test_kaspi_is_looked_at_too(sound: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("kaspi_account").state == doctor.OK
    bench = KaspiR3Bench(sandbox, monkeypatch)
    reached = found("kaspi_reachable")
    assert (reached.state, reached.words) == (doctor.OK, "Account 990140001234, test mode.")
    assert "for tests: no real money" in found("kaspi_account").words
    text = json.dumps([vars(f) for f in doctor.findings()])
    assert not any(secret in text for secret in bench.secrets)
    change(kaspi_trade_point="7")
    assert "none of its" in found("kaspi_reachable").words
    change(kaspi_trade_point="1001", kaspi_pfx_password="wrong")
    assert "KASPI_PFX cannot be opened" in found("kaspi_reachable").words
    change(kaspi_device_token="")
    assert "flask kaspi register-device" in found("kaspi_account").fix


def test_a_certificate_that_ends_soon(sound: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = KaspiR3Bench(sandbox, monkeypatch)
    facts = dict(bench.provider().health())
    for days, state in ((31, doctor.OK), (10, doctor.WARN), (-1, doctor.FAIL)):
        ends = (clock.now() + timedelta(days=days)).date().isoformat()
        told = facts | {"certificate_ends": ends}
        monkeypatch.setattr(type(bench.provider()), "health", lambda self, told=told: told)
        assert found("kaspi_reachable").state == state


def test_an_account_of_the_other_mode(sumup: SumUpBench) -> None:
    change(stripe_secret_key="", stripe_publishable_key="", sumup_test_account=False)
    finding = found("sumup_reachable")
    assert finding.state == doctor.FAIL
    assert "live mode. The provider says that it is an account for tests" in finding.words


@pytest.mark.parametrize(
    ("seconds", "state", "words"),
    [
        (3600, doctor.FAIL, "3600 seconds off: ahead of Stripe's."),
        (-65, doctor.WARN, "seconds off: behind Stripe's."),
        (-10, doctor.OK, "It agrees with Stripe's and SumUp's."),
    ],
)
def test_the_clocks_are_compared(
    sound: None, monkeypatch: pytest.MonkeyPatch, seconds: int, state: str, words: str
) -> None:
    real = time.time
    monkeypatch.setattr("domain.office.doctor.time.time", lambda: real() + seconds)
    finding = found("clock_skew")
    assert finding.state == state and words in finding.words
    finding = found("database_clock")
    assert (finding.state == doctor.OK) is (state == doctor.OK)
    assert state == doctor.OK or "the database's" in finding.words and "NTP" in finding.fix


def test_a_provider_without_a_clock(sound: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domain.office.doctor._STRIPE", "http://127.0.0.1:1/")
    change(stripe_api_base="")
    assert found("clock_skew").words.startswith("Stripe's could not be read")


def test_jobs_that_are_not_scheduled(sound: None) -> None:
    finding = found("redis", ("kassa-sweep", "kassa-mail"))
    assert finding.state == doctor.FAIL
    assert finding.words == "Not scheduled: kassa-mail."


def test_redis_down(sound: None) -> None:
    queue.bind("redis://127.0.0.1:1/0")
    assert "does not answer" in found("redis").words


def test_redis_too_old(sound: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(queue.redis), "info", lambda self, section: {"redis_version": "5.0.14"})
    assert found("redis").words == "Redis 5.0.14 is too old."


def test_dead_processes_and_a_stopped_sweep(sound: None) -> None:
    long_ago = clock.now() - timedelta(hours=2)
    db.session.query(Heartbeat).update({"at": long_ago})
    db.session.query(SweepRun).update({"started_at": long_ago})
    db.session.commit()
    for code in ("worker", "clock", "sweep"):
        finding = found(code)
        assert finding.state == doctor.FAIL
        assert finding.fix
    db.session.query(Heartbeat).delete()
    db.session.query(SweepRun).delete()
    db.session.commit()
    assert found("worker").state == doctor.WARN


def test_a_database_behind_the_program(sound: None) -> None:
    set_version = db.text("UPDATE alembic_version SET version_num = :version")
    latest = db.session.execute(db.text("SELECT version_num FROM alembic_version")).scalar_one()
    db.session.execute(set_version, {"version": "older"})
    db.session.commit()
    try:
        finding = found("migrations")
    finally:
        # The tables outlive this test.
        db.session.execute(set_version, {"version": latest})
        db.session.commit()
    assert finding.state == doctor.FAIL
    assert "flask db upgrade" in finding.fix


def test_no_admin(app: Flask) -> None:
    assert "flask users admin" in found("admin").fix


def test_a_missing_library_is_loud(sound: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from weasyprint.text import ffi

    monkeypatch.setattr(ffi, "harfbuzz_subset", None)
    finding = found("harfbuzz_subset")
    assert finding.state == doctor.FAIL
    assert "libharfbuzz-subset0" in finding.fix


def test_violations_are_findings(sound: None) -> None:
    db.session.execute(
        db.text(
            "INSERT INTO wallets (user_id, currency, balance_minor, held_minor, overdrawn, created_at)"
            " SELECT id, 'EUR', 7, 0, false, created_at FROM users LIMIT 1"
        )
    )
    db.session.commit()
    finding = found("invariant_wallets_match_the_ledger")
    assert finding.state == doctor.FAIL
    assert "wallet:" in finding.words


def test_the_command(sound: None, app: Flask) -> None:
    runner = app.test_cli_runner()
    told = runner.invoke(args=["doctor", "--json"])
    findings = json.loads(told.stdout)
    assert {"code", "title", "state", "words", "fix"} == set(findings["findings"][0])
    # The jobs are not scheduled here, so it says so and fails.
    assert told.exit_code == 1
    assert not findings["ok"]
    plain = runner.invoke(args=["doctor"])
    assert "FAIL  Redis" in plain.stdout
    assert "-> Start `flask clock`" in plain.stdout


def test_mail_test_command(sound: None, app: Flask, sandbox: Sandbox) -> None:
    told = app.test_cli_runner().invoke(args=["mail", "test", "ops@example.org"])
    assert told.exit_code == 0, told.output
    assert "accepted a test mail to ops@example.org" in told.stdout
    assert len(sandbox.mail("ops@example.org")) == 1


def test_it_compares_the_connections_with_what_the_server_allows(sound: None) -> None:
    assert found("capacity").state == doctor.OK
    # As it comes, all together stay under twenty.
    assert "18 of the" in found("capacity").words
    change(web_concurrency=30, web_threads=16)
    finding = found("capacity")
    assert finding.state == doctor.FAIL
    assert "518 of the" in finding.words and "WEB_CONCURRENCY" in finding.fix


def test_a_process_says_at_its_start_that_the_server_allows_too_few(
    sound: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_connections._Told, "done", False)
    change(web_concurrency=30, web_threads=16)
    for _ in range(2):
        database_connections.warn_at_start()
    said = [record for record in caplog.records if "too_few_connections" in str(record.msg)]
    assert len(said) == 1 and "518 of the" in str(said[0].msg)


def button() -> Finding:
    """As a process finds it that has asked nobody yet."""
    wallet_buttons._kept.clear()
    [finding] = wallet_buttons.look(registry.get("stripe"))
    return finding


def test_the_set_up_page_asks_about_the_host_now_and_then(sound: None, sandbox: Sandbox) -> None:
    """Not at each view, and nothing at all of a provider that did not answer just now."""
    change(public_url="https://tickets.example.org", development=True)
    wallet_buttons._kept.clear()

    def asked(path: str) -> int:
        since = time.time() + sandbox.get("clock")["offset_seconds"]
        doctor.findings()
        return len([call for call in sandbox.calls(since) if path in call["path"]])

    assert [asked("payment_method_domains") for _ in range(3)] == [1, 0, 0]
    sandbox.faults("http_500", rate=1, match={"path": "^/stripe"})
    wallet_buttons._kept.clear()
    assert (asked("payment_method_domains"), asked("payment_method_domains")) == (0, 0)
    [finding] = wallet_buttons.look(registry.get("stripe"))
    assert "could not be read" in finding.words and "does not answer" in finding.words
    assert found("clock_skew").words == "Stripe's could not be read: it does not answer."


def test_wallet_buttons_are_looked_at(sound: None, sandbox: Sandbox) -> None:
    """Our host, as Stripe knows it; on a machine at home there is none."""
    assert found("stripe_domain").state == doctor.OK and "https" in button().words
    change(public_url="http://tickets.example.org", development=False)
    assert button().state == doctor.WARN
    change(public_url="https://tickets.example.org", development=True)
    assert button().state == doctor.WARN and "flask stripe register-domain" in button().fix
    assert wallet_buttons.registering() == ["stripe"]
    runner = current_app.test_cli_runner()
    said = runner.invoke(args=["stripe", "register-domain"])
    assert said.exit_code == 0 and "tickets.example.org is registered" in said.output
    assert button().state == doctor.OK
    # Where Apple cannot look, the command says so, and so does the doctor.
    change(public_url="https://tickets.invalid")
    said = runner.invoke(args=["stripe", "register-domain", "Tickets.invalid"])
    assert said.exit_code == 1 and "Apple Pay: " in said.output
    assert button().state == doctor.WARN and "Apple Pay: " in button().words
    for wrong in ("localhost", "https://tickets.example.org"):
        assert runner.invoke(args=["stripe", "register-domain", wrong]).exit_code == 1
    sandbox.faults("http_500", match={"path": "payment_method_domains"})
    assert "could not be read" in button().words
    sandbox.faults()
    change(stripe_publishable_key="")
    assert button().state == doctor.OK and "no publishable key" in button().words
