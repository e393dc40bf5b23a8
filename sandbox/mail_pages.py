"""The mail catcher's pages, for a person: /mail."""

from __future__ import annotations

import base64
import re
import time

from flask import Blueprint, Response, abort, render_template, request

from sandbox.mail import Mailbox, Part, body_of, parse, parts

# What a mail shows is nobody's business but the reader's: no scripts, nothing from elsewhere.
_CSP = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "sandbox allow-popups allow-popups-to-escape-sandbox"
)
# A link in a mail opens beside the catcher, not in its frame.
_NEW_TAB = '<base target="_blank">'
_CID = re.compile(r"""(?i)cid:([^"'\s)>]+)""")


def blueprint(mailbox: Mailbox) -> Blueprint:
    """A list of mails, a mail, its HTML, its files, its source."""
    pages = Blueprint("mail", __name__, url_prefix="/mail")

    @pages.get("", strict_slashes=False)
    def index() -> str:
        return render_template("mails.html", mails=mailbox.list(200, request.args.get("to", "")))

    @pages.get("/<mail_id>")
    def show(mail_id: str) -> str:
        summary, raw = _find(mailbox, mail_id)
        headers = [(name, str(value)) for name, value in parse(raw).items()]
        return render_template("mail.html", mail=summary, headers=headers)

    @pages.get("/<mail_id>/html")
    def html(mail_id: str) -> Response:
        _, raw = _find(mailbox, mail_id)
        message = parse(raw)
        text = body_of(message, "html")
        if text is None:
            abort(404, "This mail has no HTML.")
        response = Response(
            _NEW_TAB + _with_pictures(text, parts(message)), content_type="text/html; charset=utf-8"
        )
        response.headers["Content-Security-Policy"] = _CSP
        return response

    @pages.get("/<mail_id>/part/<int:number>")
    def part(mail_id: str, number: int) -> Response:
        _, raw = _find(mailbox, mail_id)
        found = parts(parse(raw))
        if number >= len(found):
            abort(404, "This mail has no such file.")
        response = Response(found[number].content, content_type=found[number].type)
        response.headers.set("Content-Disposition", "attachment", filename=found[number].name)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @pages.get("/<mail_id>/source")
    def source(mail_id: str) -> Response:
        _, raw = _find(mailbox, mail_id)
        return Response(raw, content_type="text/plain; charset=utf-8")

    @pages.app_template_filter("clock_time")
    def clock_time(seconds: float) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))

    return pages


def _find(mailbox: Mailbox, mail_id: str) -> tuple[dict[str, object], bytes]:
    found = mailbox.find(mail_id)
    if found is None:
        abort(404, "There is no such mail.")
    return found


def _with_pictures(html: str, files: list[Part]) -> str:
    """The HTML with the mail's own pictures in it, where it names them by Content-ID."""
    by_id = {part.content_id: part for part in files if part.content_id}

    def picture(match: re.Match[str]) -> str:
        part = by_id.get(match.group(1))
        if part is None:
            return match.group(0)
        return f"data:{part.type};base64,{base64.b64encode(part.content).decode()}"

    return _CID.sub(picture, html)
