"""/control: what a person does in the provider's dashboard, and what fate does. JSON in and out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from sandbox import settings
from sandbox.calls import Calls
from sandbox.clock import Clock
from sandbox.dashboards import BadRequest, Conflict, Dashboard, NotFound
from sandbox.faults import BadRule, Faults
from sandbox.kaspi.dashboard import KaspiDashboard
from sandbox.mail import Mailbox
from sandbox.store import Store
from sandbox.sumup.dashboard import SumupDashboard
from sandbox.webhooks import Webhooks

Body = dict[str, Any]
MOST = 10_000


@dataclass
class Controlled:
    """Everything that /control has its hands on."""

    settings: settings.Settings
    store: Store
    clock: Clock
    faults: Faults
    calls: Calls
    webhooks: Webhooks
    mailbox: Mailbox
    dashboards: Sequence[Dashboard]
    sumup: SumupDashboard
    kaspi: KaspiDashboard

    def payments(self, limit: int) -> list[Body]:
        """The newest payments of all providers."""
        found = [payment for dashboard in self.dashboards for payment in dashboard.payments(limit)]
        return sorted(found, key=lambda payment: -float(payment["created"]))[:limit]

    def dashboard_of(self, payment_id: str) -> Dashboard:
        for dashboard in self.dashboards:
            if dashboard.has(payment_id):
                return dashboard
        raise NotFound(f"No provider has ids like {payment_id}.")


def blueprint(it: Controlled) -> Blueprint:
    """Everything under /control."""
    control = Blueprint("control", __name__, url_prefix="/control")
    control.before_request(_refuse_other_sites)
    _errors(control)
    _payments(control, it)
    _fate(control, it)
    _records(control, it)
    _merchants(control, it)
    _mail(control, it)
    return control


def _refuse_other_sites() -> None:
    """No page of another site may press these buttons through somebody's browser."""
    origin = request.headers.get("Origin")
    if request.method == "POST" and origin not in (None, request.host_url.rstrip("/")):
        abort(403, "This request comes from another site's page.")


def _errors(control: Blueprint) -> None:
    def answer(status: int) -> Any:
        return lambda error: (_json({"error": str(error)}), status)

    control.register_error_handler(BadRequest, answer(400))
    control.register_error_handler(BadRule, answer(400))
    control.register_error_handler(NotFound, answer(404))
    control.register_error_handler(Conflict, answer(409))

    @control.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[Response, int]:
        return _json({"error": error.description}), error.code or 500


def _payments(control: Blueprint, it: Controlled) -> None:
    @control.get("", strict_slashes=False)
    def index() -> str:
        return render_template(
            "control.html",
            payments=it.payments(50),
            webhooks=it.webhooks.list(20),
            faults=it.faults.show(),
            offset=it.clock.offset(),
            calls=it.calls.since(0)[-20:][::-1],
        )

    @control.get("/payments")
    def payments() -> Response:
        return _json(it.payments(_limit()))

    @control.get("/payments/<payment_id>")
    def payment(payment_id: str) -> Response:
        return _json(it.dashboard_of(payment_id).payment(payment_id))

    @control.post("/payments/<payment_id>")
    def act(payment_id: str) -> AnyResponse:
        # `curl -d` calls whatever it sends a form, JSON too.
        if not request.get_data().lstrip().startswith(b"{") and request.form:
            it.dashboard_of(payment_id).act(payment_id, request.form.to_dict())
            return redirect(url_for("control.index"), 303)
        return _json(it.dashboard_of(payment_id).act(payment_id, _body()))


def _fate(control: Blueprint, it: Controlled) -> None:
    @control.get("/faults")
    def faults() -> Response:
        return _json(it.faults.show())

    @control.post("/faults")
    def set_faults() -> Response:
        it.faults.set(_body())
        return _json(it.faults.show())

    @control.get("/clock")
    def clock() -> Response:
        return _clock(it.clock)

    @control.post("/clock")
    def move_clock() -> Response:
        body = _body()
        if body.get("reset") is True:
            it.clock.reset()
        seconds = body.get("advance_seconds", 0 if body.get("reset") is True else None)
        usable = isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds)
        if not usable or body.keys() - {"advance_seconds", "reset"}:
            raise BadRequest('Send {"advance_seconds": a number}, or {"reset": true}.')
        if seconds:
            it.clock.advance(seconds)
        it.webhooks.wake()
        return _clock(it.clock)

    @control.post("/reset")
    def reset() -> Response:
        """A new sandbox: no payments, nothing wrong, the real time. Accounts that are connected stay so."""
        it.faults.set({})
        it.clock.reset()
        with it.store.transaction():
            it.store.empty()
        it.calls.empty()
        return _json({})


def _records(control: Blueprint, it: Controlled) -> None:
    @control.get("/calls")
    def calls() -> Response:
        return _json(it.calls.since(_moment(request.args.get("since", "0"), it.clock)))

    @control.get("/webhooks")
    def webhooks() -> Response:
        return _json(it.webhooks.list(_limit(1000)))

    @control.post("/webhooks")
    @control.post("/webhooks/<wanted>")
    def redeliver(wanted: str = "") -> Response:
        wanted = wanted or str(_body().get("id") or _body().get("event_id") or "")
        sent = it.webhooks.redeliver(wanted)
        if sent is None:
            raise NotFound(f"No webhook or event {wanted!r} has been sent. See GET /control/webhooks.")
        return _json(sent)

    @control.get("/settings")
    def show_settings() -> Response:
        return _json(_settings(it))

    @control.post("/settings")
    def change_settings() -> Response:
        body = _body()
        usable = body and not body.keys() - {"webhook_url", "hold_webhooks", "sumup", "kaspi"}
        usable = usable and isinstance(body.get("hold_webhooks", False), bool)
        if not usable or not isinstance(body.get("webhook_url"), str | None):
            raise BadRequest(
                'Only {"webhook_url": ..., "hold_webhooks": true or false, "sumup": {...}, "kaspi": {...}} '
                "can be changed."
            )
        if "sumup" in body:
            it.sumup.choose(body["sumup"])
        if "kaspi" in body:
            it.kaspi.choose(body["kaspi"])
        if "webhook_url" in body:
            it.webhooks.url = body["webhook_url"] or ""
        if "hold_webhooks" in body:
            it.webhooks.held = body["hold_webhooks"]
            it.webhooks.wake()
        return _json(_settings(it))


def _merchants(control: Blueprint, it: Controlled) -> None:
    """The accounts that organisers connect: SumUp's."""

    @control.get("/merchants")
    def merchants() -> Response:
        return _json(it.sumup.merchants())

    @control.post("/merchants")
    def add() -> Response:
        return _json(it.sumup.add_merchants(_body()))

    @control.post("/merchants/<code>")
    def act_on(code: str) -> Response:
        return _json(it.sumup.merchant_act(code, _body()))


def _mail(control: Blueprint, it: Controlled) -> None:
    @control.get("/mail")
    def mail() -> Response:
        return _json(it.mailbox.list(_limit(), request.args.get("to", "")))

    @control.get("/mail/<mail_id>")
    def one_mail(mail_id: str) -> Response:
        found = it.mailbox.find(mail_id)
        if found is None:
            raise NotFound(f"No mail has the id {mail_id}.")
        summary, raw = found
        if request.args.get("raw"):
            return Response(raw, content_type="message/rfc822")
        return _json(summary)


def _settings(it: Controlled) -> Body:
    base = it.settings.public_url
    return {
        "base_url": base,
        "webhook_url": it.webhooks.url or None,
        "hold_webhooks": it.webhooks.held,
        "home": str(it.settings.home),
        "stripe": {
            "api_base": f"{base}/stripe",
            "secret_key": settings.SECRET_KEY,
            "publishable_key": settings.PUBLISHABLE_KEY,
            "webhook_secret": settings.WEBHOOK_SECRET,
            "account": settings.ACCOUNT,
        },
        "sumup": it.sumup.settings(),
        "kaspi": it.kaspi.settings(),
        "mail": {
            "smtp_host": "127.0.0.1",
            "smtp_port": it.settings.smtp_port,
            "resend_base": f"{base}/resend",
            "resend_key": settings.RESEND_KEY,
        },
    }


def _json(value: Any) -> Response:
    return Response(json.dumps(value), content_type="application/json")


def _body() -> Body:
    body = request.get_json(force=True, silent=True) if request.get_data() else {}
    if not isinstance(body, dict):
        raise BadRequest("Send a JSON object.")
    return body


def _limit(default: int = 100) -> int:
    text = request.args.get("limit", str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise BadRequest(f"limit must be between 1 and {MOST}.")
    return int(text)


def _moment(text: str, clock: Clock) -> float:
    """Seconds since the epoch, or an ISO time. One ahead of the real time is by the sandbox's clock."""
    try:
        moment = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text).timestamp()
        except ValueError as error:
            raise BadRequest("since must be seconds since the epoch, or an ISO time.") from error
    real = clock.now() - clock.offset()
    return moment - clock.offset() if moment > real else moment


def _clock(clock: Clock) -> Response:
    return _json({"now": clock.now(), "offset_seconds": clock.offset()})
