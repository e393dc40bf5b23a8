"""Sweeps, jobs and mail, and what a provider says of its account."""

from __future__ import annotations

from flask import abort, jsonify, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import StringField
from wtforms.validators import DataRequired, Email

import config
from blueprints.office.blueprint import act, bp, chosen, debug_bp, text
from blueprints.refunding import checked
from domain import jobs
from domain.errors import DomainError
from domain.office import overview
from domain.office import restored as shop
from domain.post import outbox
from models import MailState


class TestMailForm(FlaskForm):
    address = StringField(validators=[DataRequired("Type an address."), Email("That is not an address.")])


@bp.get("/sweeps")
def sweeps() -> str:
    try:
        failed, scheduled, problem = jobs.failed(), jobs.scheduled(), ""
    except DomainError as error:
        failed, scheduled, problem = [], [], error.message
    return render_template(
        "office/sweeps.html", sweeps=overview.sweeps(), failed=failed, scheduled=scheduled, problem=problem
    )


@bp.post("/jobs/<job_id>/requeue")
def requeue(job_id: str) -> Response:
    def do() -> tuple[str, str]:
        jobs.requeue(job_id)
        return "success", "The job will run again in a moment."

    return act(do, url_for("admin.sweeps"))


@bp.get("/mail")
def mail() -> str:
    state = chosen(MailState)
    found = overview.mails(state, request.args.get("before", type=int))
    return render_template("office/mail.html", found=found, state=state, states=MailState)


@bp.get("/restored")
def restored() -> str:
    return render_template("office/restored.html", found=shop.look(), waiting=shop.mails_waiting())


@bp.post("/restored/open")
def open_restored() -> Response:
    def do() -> tuple[str, str]:
        shop.open_shop(anyway=bool(request.form.get("anyway")))
        return "success", "The shop is open. It takes a few seconds until every page knows."

    return act(do, url_for("admin.restored"))


@bp.post("/mail/<int:mail_id>/drop")
def drop_mail(mail_id: int) -> Response:
    def do() -> tuple[str, str]:
        outbox.drop(mail_id)
        return "success", "The mail will not be sent."

    return act(do, url_for("admin.restored"))


@bp.post("/mail/<int:mail_id>/retry")
def retry_mail(mail_id: int) -> Response:
    def do() -> tuple[str, str]:
        outbox.retry(mail_id)
        return "success", "The mail will be tried again within a minute."

    return act(do, url_for("admin.mail"))


@bp.post("/mail/test")
def test_mail() -> Response:
    """Send a test mail now, to prove that mail leaves."""

    def do() -> tuple[str, str]:
        form = TestMailForm()
        checked(form)
        return "success", outbox.send_test(text(form.address))

    return act(do, url_for("admin.mail"))


@bp.get("/<any(stripe, sumup, kaspi):name>")
def provider(name: str) -> Response | str:
    return _provider_page(name)


@debug_bp.get("/stripe/debug/")
def provider_debug() -> Response | str:
    """The same, for whoever develops: there is no such page in production."""
    if config.get().production:
        abort(404)
    return _provider_page("stripe")


def _provider_page(name: str) -> Response | str:
    found = overview.connection(name)
    if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json":
        return jsonify(
            ready=found.ready,
            connected=not found.problem,
            problem=found.problem,
            webhook_secret=found.webhook_secret,
            events=[
                {
                    "id": event.event_id,
                    "type": event.type,
                    "object": event.object_id,
                    "received_at": event.received_at.isoformat(),
                    "done_at": event.done_at.isoformat() if event.done_at is not None else None,
                    "outcome": event.outcome,
                }
                for event in found.events
            ],
            **{name: value for name, value in found.facts.items() if name != "webhook_secret"},
        )
    return render_template("office/provider.html", found=found, debug=request.path.startswith("/stripe"))
