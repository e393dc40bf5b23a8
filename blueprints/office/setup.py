"""`/admin/setup`: what this installation still lacks, in words; and the first admin's link, in the log."""

from __future__ import annotations

from threading import Lock

import structlog
from flask import Blueprint, Flask, flash, redirect, render_template, url_for
from werkzeug.wrappers import Response

import config
from blueprints.access import role_required
from blueprints.visitor import signed_in
from domain import clock
from domain.backups import keys, taking
from domain.errors import DomainError
from domain.office import doctor, wallet_buttons
from domain.people import accounts
from domain.post import outbox
from models import Role

bp = Blueprint("setup", __name__, url_prefix="/admin/setup")


def register(app: Flask) -> None:
    """Add the page, and see to the first admin when the first request comes."""
    app.register_blueprint(bp)
    app.before_request(_FirstRequest())


@bp.get("")
def checklist() -> str | Response:
    if not accounts.has_admin():
        return render_template("office/setup/first.html")
    return _checklist()


@role_required(Role.ADMIN)
def _checklist() -> str:
    return render_template(
        "office/setup/checklist.html",
        findings=doctor.findings(),
        states=doctor,
        registers=wallet_buttons.host() if wallet_buttons.registering() else "",
        events=doctor.WEBHOOK_EVENTS,
        user=signed_in(),
    )


@bp.get("/sheet")
@role_required(Role.ADMIN)
def sheet() -> str:
    """One page to print: what this shop's keys look like, where its backups are, and the way back."""
    return render_template(
        "office/setup/sheet.html", keys=keys.fingerprints(), good=taking.last_good(), today=clock.now()
    )


@bp.post("/mail")
@role_required(Role.ADMIN)
def test_mail() -> Response:
    user = signed_in()
    try:
        flash(outbox.send_test(user.email if user is not None else config.get().admin_email), "success")
    except DomainError as error:
        flash(error.message, "error")
    return redirect(url_for(".checklist"), 303)


@bp.post("/domain")
@role_required(Role.ADMIN)
def register_domain() -> Response:
    try:
        flash(wallet_buttons.register_everywhere(), "success")
    except DomainError as error:
        flash(error.message, "error")
    return redirect(url_for(".checklist"), 303)


class _FirstRequest:
    """Once in each process, when its first request comes: make the first admin and print the link.

    Not when the application is made, for commands and `flask db upgrade` make one too, before there are
    tables. A health check is a request, so on a host that asks for one the link is in the log at once.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._done = False

    def __call__(self) -> None:
        if self._done:
            return
        with self._lock:
            if self._done:
                return
            try:
                link = accounts.ensure_first_admin()
            except DomainError as error:
                structlog.get_logger(__name__).warning("first_admin_waits", reason=error.message)
                return
            self._done = True
        if link is not None:
            # Printed, because the log's redaction would rightly take the secret out.
            print(f"FIRST ADMIN: open this link within 7 days to choose a password: {link}", flush=True)
