"""Before any page: Kassa has one address, PUBLIC_URL, and in production speaks https there.

What arrives under another host's name, or came to the front of us in clear, is led to the same path there, so
that no page is built for a name that somebody else may own, and no cookie or order link travels in clear.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import quote, urlsplit

import idna
from flask import Flask, Response, jsonify, make_response, redirect, render_template, request
from werkzeug.routing import RequestRedirect
from werkzeug.wrappers import Response as BaseResponse

import config
from blueprints.api import errors as api_errors
from blueprints.visitor import is_for_api, wants_json
from domain.security import fronts
from extensions import network

# Hosts ask by an address of their own whether we are well, and providers ring where they were told to.
_ANY_ADDRESS = frozenset(
    {"health.livez", "health.healthz", "health.metrics", "payments.webhook", "payments.called"}
)


def register(app: Flask) -> None:
    """Look at where each request came to before anything else is done with it."""
    app.before_request(_lead_home)
    app.before_request(_note_visit)


def _note_visit() -> None:
    """Where pages are asked from. Hosts, providers and programs come from few addresses by their nature."""
    endpoint = request.endpoint or "static"
    if endpoint not in _ANY_ADDRESS and not endpoint.endswith("static") and not is_for_api():
        fronts.note(network(request.remote_addr or ""))


def _lead_home() -> BaseResponse | None:
    if is_for_api():
        return _no_way_home()
    if request.endpoint not in _ANY_ADDRESS:
        if came_in_clear():
            return _to(308) if request.method in ("GET", "HEAD") else _not_in_clear()
        if not _is_our_name():
            # Not for ever: whoever mistypes PUBLIC_URL would otherwise stay in browsers' memories.
            return _to(307)
    if isinstance(request.routing_exception, RequestRedirect):
        # A missing slash. Werkzeug would write out whatever Host and scheme the request came with.
        parts = urlsplit(request.routing_exception.new_url)
        return redirect(_without_host(parts.path, parts.query), request.routing_exception.code)
    return None


def _no_way_home() -> BaseResponse | None:
    """A program is led nowhere: it would bring its token along, to wherever its mistake was.

    What it has sent in clear may have been read already, so it is told at once, and does not go on like that.
    """
    if request.endpoint in _ANY_ADDRESS:
        return None
    home = f"Send it to {config.get().public_url}."
    if came_in_clear():
        words = "This was sent without encryption, so nothing was done with it; its token may have been read."
        return api_errors.answer(403, f"{words} {home}", "not_encrypted")
    if not _is_our_name():
        return api_errors.answer(421, f"This shop's API is not at this host. {home}", "wrong_host")
    if isinstance(request.routing_exception, RequestRedirect):
        return api_errors.answer(404, "There is nothing at this address of the API: mind the slashes.")
    return None


# --- Where it came to -----------------------------------------------------------------------------------


def came_in_clear() -> bool:
    """Whether the front says so. A front that says nothing may well speak TLS.

    Of two proxies the inner one may tell a single value, the outer one's or its own: then that one counts.
    """
    settings = config.get()
    if not (settings.production and settings.https and settings.trusted_proxies):
        return False
    told = request.headers.get("X-Forwarded-Proto", "").split(",")
    return told[-settings.trusted_proxies :][0].strip().lower() == "http"


def _is_our_name() -> bool:
    """Whether the request asks for PUBLIC_URL's host. Ports are the front's business."""
    settings = config.get()
    home = _name(urlsplit(settings.public_url).netloc)
    asked = [request.headers.get("Host", "")]
    if settings.trusted_proxies:
        # Some fronts call us by an address of their own, and tell here what the browser asked for.
        asked += request.headers.get("X-Forwarded-Host", "").rsplit(",", 1)[-1:]
    names = [_name(host.strip()) for host in asked]
    if home in names:
        return True
    # A production that was not told its address serves every name; the doctor fails for it.
    return _is_near(names[0] if settings.development else home)


def _name(host: str) -> str:
    """The name in a Host header, as machines write it; empty when there is none to be read."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name if name.isascii() else idna.encode(name, uts46=True).decode()
    except ValueError:
        return ""


def _is_near(name: str) -> bool:
    """Whether a name or an address is of this machine, or of the network at home or in a container."""
    if "." not in name and ":" not in name:
        return name != ""
    try:
        address = ip_address(name)
    except ValueError:
        return name.endswith((".localhost", ".local"))
    return address.is_private or address.is_loopback


# --- What is answered -----------------------------------------------------------------------------------


def _to(status: int) -> BaseResponse:
    return redirect(_here_at_home(), status)


def _here_at_home() -> str:
    path = _without_host(quote(request.path), request.query_string.decode("latin-1"))
    return config.get().public_url + path


def _without_host(path: str, query: str) -> str:
    """A path that browsers cannot take for another host: two slashes would begin one."""
    path = "/" + path.lstrip("/\\")
    return f"{path}?{query}" if query else path


def _not_in_clear() -> Response:
    """What was sent in clear may have been read by anybody, so it is not taken, nor repeated."""
    words = "This was sent without encryption, so nothing was done with it."
    home = config.get().public_url
    if wants_json():
        return make_response(jsonify(error="not_encrypted", message=f"{words} Send it to {home}."), 403)
    return make_response(render_template("in_clear.html", words=words, home=home), 403)
