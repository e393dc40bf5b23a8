"""SECRET_KEY is changed: what the rotated ones have sealed holds, of the revoked ones' the database decides.

And what a worker reads out of Redis, and whom it takes Redis for.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.registry import FailedJobRegistry

import config
import worker
from app import create_app
from blueprints.api import cursors
from domain import clock, pay_links
from domain.door import check_in, staff
from domain.security import api_tokens, keyring, mailed_codes
from domain.tickets import issuing
from domain.tickets.issuing import ClaimKind
from extensions import JobText, PlainJob, db, queue
from models import Heartbeat, Role, Verdict
from tests.support.people import log_in, make_member
from tests.support.shop import make_event, place

NEW = "a-new-secret-for-tests"


@pytest.fixture
def with_keys(app: Flask) -> Iterator[Any]:
    """Another process of the same shop, with other keys, and a browser that has the cookies of before."""
    before = config.get()
    made: list[Flask] = []

    def start(browser: FlaskClient | None = None, **keys: Any) -> FlaskClient:
        other = create_app(replace(before, **keys))
        made.append(other)
        follower = other.test_client()
        for cookie in (browser._cookies or {}).values() if browser is not None else ():
            follower.set_cookie(cookie.key, cookie.value, domain=cookie.domain, path=cookie.path)
        return follower

    yield start
    config.use(before)
    queue.bind(before.redis_url)
    for other in made:
        with other.app_context():
            db.engine.dispose()


def rotated() -> dict[str, Any]:
    return {"secret_key": NEW, "secret_keys_rotated": (config.get().secret_key,)}


def revoked() -> dict[str, Any]:
    return {"secret_key": NEW, "secret_keys_revoked": (config.get().secret_key,)}


def test_sessions_hold_through_a_rotation_and_end_with_a_revocation(app: Flask, with_keys: Any) -> None:
    make_member()
    browser = app.test_client()
    log_in(browser)
    assert browser.get("/account/").status_code == 200
    holds, ends = rotated(), revoked()
    assert with_keys(browser, **holds).get("/account/").status_code == 200
    assert with_keys(browser, **ends).get("/account/").status_code == 303


def test_a_remembered_browser_is_remembered_through_a_rotation(app: Flask, with_keys: Any) -> None:
    make_member()
    browser = app.test_client()
    from tests.support.people import PASSWORD, post

    page = "/account/login"
    post(browser, page, page="/account/forgot", email="ann@example.org", password=PASSWORD, remember="on")
    browser.delete_cookie("session")
    holds, ends = rotated(), revoked()
    assert with_keys(browser, **ends).get("/account/").status_code == 303
    follower = with_keys(browser, **holds)
    assert follower.get("/account/").status_code == 200
    # Logging out ends what the old key had signed, wherever its copies are.
    follower.get("/account/")
    with follower.application.test_request_context(
        headers={"Cookie": f"remember_token={cookie_of(browser)}"}
    ):
        from blueprints import access

        access.end_session()
    assert with_keys(browser, **holds).get("/account/").status_code == 303


def cookie_of(browser: FlaskClient) -> str:
    found = browser.get_cookie("remember_token")
    assert found is not None
    return found.value


def test_tickets_hold_and_of_a_revoked_key_s_the_database_decides(app: Flask) -> None:
    event = make_event(price_minor=0)
    order = place(event)
    ticket = order.tickets[0]
    text, before = issuing.qr_text(ticket, order.code), config.get()
    # Whoever has the key can make such a text, of a ticket that there is none of.
    forged = text.replace(ticket.code, "ABCDEFGH"[: len(ticket.code)])
    said = (order.code, ticket.number, event.id, "ABCDEFGH"[: len(ticket.code)])
    forged = forged[: -len(issuing._signature(*said, b"x" * 32))]
    forged += issuing._signature(*said, before.derived_key("ticket-qr"))
    holds, ends = rotated(), revoked()
    config.use(replace(before, **holds))
    assert issuing.read(text).kind is ClaimKind.GENUINE
    config.use(replace(before, **ends))
    assert issuing.read(text).kind is ClaimKind.SHORT_CODE
    keeper = staff.by_user(make_member("door@example.org", Role.ADMIN), event.slug)
    assert check_in.scan(keeper, "scan-forged-0001", forged).verdict is Verdict.UNKNOWN
    assert check_in.scan(keeper, "scan-genuine-001", text).verdict is Verdict.VALID
    config.use(replace(before, secret_key=NEW))
    assert issuing.read(text).kind is ClaimKind.FORGED


def test_what_is_kept_sealed_can_be_read_and_links_and_tokens_hold(app: Flask) -> None:
    before, user = config.get(), make_member()
    sealed, link = keyring.seal("a refresh token"), pay_links.key(before, "ORD-A-1")
    cursor, session = cursors.write("payments", 7), api_tokens.begin(user)
    mailed = str(mailed_codes.make(user, "here", "192.0.2.1"))
    holds, ends = rotated(), revoked()
    config.use(replace(before, **holds))
    assert keyring.unseal(sealed) == "a refresh token"
    assert pay_links.opens(config.get(), "ORD-A-1", link)
    assert cursors.read("payments", cursor) == 7
    assert mailed_codes.take(user, mailed, "here")
    config.use(before)
    mailed = str(mailed_codes.make(user, "here", "192.0.2.1"))
    config.use(replace(before, **holds))
    assert api_tokens.whose(api_tokens.session_of(session.access)).id == user.id
    config.use(replace(before, **ends))
    assert keyring.unseal(sealed) == "a refresh token" and keyring.reseal(sealed) != sealed
    assert not pay_links.opens(config.get(), "ORD-A-1", link)
    assert not mailed_codes.take(user, mailed, "here")
    with pytest.raises(api_tokens.BadToken):
        api_tokens.whose(api_tokens.session_of(session.access))


def test_a_key_has_one_place(app: Flask, environ: dict[str, str]) -> None:
    for keys in (
        {"SECRET_KEY_ROTATED": environ["SECRET_KEY"]},
        {"SECRET_KEY_REVOKED": f"other {environ['SECRET_KEY']}"},
        {"SECRET_KEY_ROTATED": "one two", "SECRET_KEY_REVOKED": "two"},
    ):
        with pytest.raises(config.ConfigError, match="SECRET_KEY_R"):
            config.load({**environ, **keys})
    settings = config.load({**environ, "SECRET_KEY_ROTATED": "one two"})
    assert settings.secret_keys_rotated == ("one", "two") and len(settings.derived_keys("x")) == 3


def test_jobs_are_json_and_those_of_the_version_before_still_run(app: Flask) -> None:
    queue.soon("renew_rows")
    assert PlainJob.fetch(queue.jobs().job_ids[0], connection=queue.redis).data[:1] == b"["
    # As the version before wrote them.
    Queue(queue.name, connection=queue.redis).enqueue("worker.deliver_mail")
    hostile = Job.create("worker.deliver_mail", connection=queue.redis)
    hostile.data = pickle.dumps(("worker.deliver_mail", datetime(2026, 1, 1, tzinfo=UTC), (), {}))
    hostile.origin = queue.name
    hostile.save()
    # And what JSON can say as well: any function that can be imported, and ones to be called afterwards.
    bad: list[tuple[str, list[Any]]] = [("os.system", ["true"]), ("worker.sleep", [0]), ("print", ["x"])]
    others = [PlainJob.create(name, args=args, connection=queue.redis) for name, args in bad]
    calls = PlainJob.create("worker.renew_rows", connection=queue.redis)
    for job in (*others, calls):
        job.origin = queue.name
        job._success_callback_name = "builtins.exit"
        job.save()
    for one in (hostile, *others, calls):
        queue.redis.rpush(queue.jobs().key, one.id)
    started = clock.now()
    running = SimpleWorker([queue.jobs()], connection=queue.redis, job_class=PlainJob, serializer=JobText)
    running.work(burst=True, logging_level="CRITICAL")
    beat = db.session.get(Heartbeat, "worker", populate_existing=True)
    assert beat is not None and beat.at >= started
    failed = FailedJobRegistry(queue=queue.jobs())
    # What would have had to be imported was not run; nor did it stop the worker.
    assert set(failed.get_job_ids()) == {hostile.id, *(job.id for job in others)}
    assert not queue.jobs().job_ids
    said = [getattr(job.latest_result(), "exc_string", "") for job in others]
    assert all("is no job." in words for words in said), said


def test_the_schedule_is_json_and_takes_over_the_one_before(app: Flask) -> None:
    from rq_scheduler import Scheduler

    old = Scheduler(queue_name=queue.name, connection=queue.redis)
    worker.reconcile_schedule(old)
    new = Scheduler(queue_name=queue.name, connection=queue.redis, job_class=PlainJob)
    worker.reconcile_schedule(new)
    jobs = list(new.get_jobs())
    assert {job.func_name for job in jobs} == {job.function for job in worker.periodic()}
    assert {job.meta["interval"] for job in jobs} == {job.seconds for job in worker.periodic()}


def test_whose_redis_it_is_is_looked_at(app: Flask, environ: dict[str, str]) -> None:
    secure = {**environ, "REDIS_URL": "rediss://redis.example.org:6380"}
    for more, told in (
        ({}, "required"),
        ({"REDIS_TLS_VERIFY": "false"}, "none"),
        # Heroku's is signed by nobody.
        ({"DYNO": "web.1"}, "none"),
        ({"DYNO": "web.1", "REDIS_TLS_VERIFY": "true"}, "required"),
    ):
        settings = config.load({**secure, **more})
        assert settings.redis_tls(settings.redis_url)["ssl_cert_reqs"] == told
    assert config.get().redis_tls("redis://127.0.0.1") == {}
