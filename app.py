"""The application factory: settings, extensions, blueprints, error pages, commands."""

from __future__ import annotations

import atexit
import gc

# Loading makes many objects and no garbage: to look through them all again and again was a sixth of a start.
gc.disable()

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import click
import structlog
from flask import Flask, Response, g, jsonify, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DataError, SQLAlchemyError
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

import config
import extensions
import logs
from blueprints import assets, front, gate, visitor
from blueprints.api import errors as api_errors
from blueprints.visitor import is_for_api, wants_json
from domain import acting, addresses, audit, blocking, epochs, money, rendering
from domain.connections import credentials
from domain.errors import DomainError, NotFound
from domain.office import database_connections
from domain.providers import bulkhead, kaspi_certificate, knowledge, registry, shared_rate
from domain.security import fronts

# What was loaded stays for as long as the process, and is not looked through before its end.
gc.freeze()
atexit.register(gc.unfreeze)
gc.enable()


def create_app(settings: config.Settings | None = None) -> Flask:
    """Build the application. Raises config.ConfigError, in the operator's words, when a setting is wrong."""
    with _without_collecting():
        return _made(_settings(settings))


@contextmanager
def _without_collecting() -> Iterator[None]:
    """The pages, and what they stand on, are loaded in here."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _made(settings: config.Settings) -> Flask:
    config.use(settings)
    logs.configure(settings)
    app = Flask(__name__)
    app.config.update(_flask_settings(settings))
    # Nobody waits for a connection where there is one a thread; so long at most, where there is not.
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": database_connections.JOBS_POOL if _is_command() else database_connections.web_pool(),
        "max_overflow": 0,
        "pool_recycle": 1800,
        "pool_timeout": 10,
        # What is written to the database has birth dates in it; an error that is logged has not.
        "hide_parameters": True,
    }
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        app.wsgi_app, x_for=settings.trusted_proxies, x_proto=settings.trusted_proxies
    )
    logs.watch(app)
    app.before_request(_new_nonce)
    app.before_request(bulkhead.enter_web)
    app.teardown_request(lambda error: bulkhead.leave_web())
    front.register(app)
    gate.register(app)
    _bind(app, settings)
    assets.register(app)
    _add_pages(app)
    app.register_error_handler(DomainError, _domain_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(DataError, _data_error)
    app.register_error_handler(SQLAlchemyError, _database_error)
    app.after_request(_secure)
    # Who is answered before there is a page of ours is shown text, and nothing that could be carried out.
    nothing = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
    app.extensions["plain_headers"] = [*_on_everything(settings), nothing]
    app.add_template_filter(money.show, "money")
    app.add_template_filter(addresses.shown, "address")
    app.add_template_filter(rendering.when, "when")
    app.add_template_filter(rendering.place_of, "place")
    app.add_template_filter(registry.title, "provider")
    app.context_processor(
        lambda: {
            "settings": config.get(),
            "csp_nonce": lambda: g.get("csp_nonce", ""),
            "shop_closed": epochs.seems_closed,
        }
    )
    return app


def _add_pages(app: Flask) -> None:
    """Add the pages and the commands, which are loaded now: whoever imports this module may want neither."""
    import cli
    from blueprints import api, desk, door, office, organiser, people, shop, tournaments, wallet

    for area in (shop, tournaments, wallet, people, door, desk, organiser, office, api, cli):
        area.register(app)


def _is_command() -> bool:
    """Whether a `flask` command runs here: the worker and the clock are such."""
    return click.get_current_context(silent=True) is not None


def _settings(given: config.Settings | None) -> config.Settings:
    try:
        settings = given or config.get()
        money.check_settings(settings)
        kaspi_certificate.check_settings(settings)
        return addresses.settle(settings)
    except config.ConfigError as error:
        if not _is_command():
            raise
        # Flask shows a traceback before the list of its commands for anything but an exit.
        error.show()
        raise SystemExit(error.exit_code) from None


def _flask_settings(settings: config.Settings) -> dict[str, object]:
    return {
        "SECRET_KEY": settings.secret_key,
        "SECRET_KEY_FALLBACKS": list(settings.secret_keys_rotated),
        "SQLALCHEMY_DATABASE_URI": settings.database_url,
        "MAX_CONTENT_LENGTH": gate.PICTURE_BYTES,
        # `__Host-`: browsers take no such cookie from another host of the same domain.
        "SESSION_COOKIE_NAME": "__Host-session" if settings.https else "session",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": settings.https,
        "REMEMBER_COOKIE_NAME": "__Host-remember_token" if settings.https else "remember_token",
        "REMEMBER_COOKIE_HTTPONLY": True,
        "REMEMBER_COOKIE_SAMESITE": "Lax",
        "REMEMBER_COOKIE_SECURE": settings.https,
        "WTF_CSRF_TIME_LIMIT": None,
        # It wants a Referer, which our pages send nowhere: extensions.FormGuard asks in another way.
        "WTF_CSRF_SSL_STRICT": False,
        "BOOTSTRAP_SERVE_LOCAL": True,
        "RATELIMIT_ENABLED": settings.limits,
        "RATELIMIT_STORAGE_URI": settings.redis_url,
        "RATELIMIT_STORAGE_OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1}
        | settings.redis_tls(settings.redis_url),
        # Without Redis the limits fall back to this process's memory: buying goes on.
        "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED": True,
        "RATELIMIT_HEADERS_ENABLED": False,
        "SEND_FILE_MAX_AGE_DEFAULT": 3600,
        "MAIL_SERVER": settings.mail_server,
        "MAIL_PORT": settings.mail_port,
        "MAIL_USERNAME": settings.mail_username or None,
        "MAIL_PASSWORD": settings.mail_password or None,
        "MAIL_USE_TLS": settings.mail_use_tls,
        "MAIL_USE_SSL": settings.mail_use_ssl,
        "MAIL_DEFAULT_SENDER": settings.mail_sender,
    }


def _bind(app: Flask, settings: config.Settings) -> None:
    extensions.db.init_app(app)
    extensions.migrate.init_app(app, extensions.db, compare_type=True)
    extensions.login.init_app(app)
    extensions.csrf.init_app(app)
    extensions.limiter.init_app(app)
    extensions.count_networks_by(fronts.counted)
    extensions.mail.init_app(app)
    extensions.bootstrap.init_app(app)
    extensions.queue.bind(settings.redis_url)
    shared_rate.bind(settings.redis_url)
    knowledge.bind(settings.redis_url)
    audit.watch_session()
    acting.at_edge(visitor.actor)
    with app.app_context():
        credentials.use(extensions.db.engine)


def _new_nonce() -> None:
    g.csp_nonce = secrets.token_urlsafe(16)


def _secure(response: Response) -> Response:
    """The headers every page carries. Order links are secrets, so nothing leaves by a Referer."""
    headers = response.headers
    _keep_to_its_reader(response)
    # A page that carries something of a provider's says what it needs; see blueprints/shop/pay_page.py.
    allowed: Mapping[str, tuple[str, ...]] = g.get("allowed_sources", {})
    headers.setdefault("Content-Security-Policy", _policy(g.get("csp_nonce", ""), allowed))
    headers.setdefault("Permissions-Policy", _permissions(allowed))
    if config.get().https and not front.came_in_clear():
        # A wallet's button may open a window of its provider's, which has to find the page that opened it.
        # In clear browsers ignore it, and complain.
        opens = "same-origin-allow-popups" if allowed else "same-origin"
        headers.setdefault("Cross-Origin-Opener-Policy", opens)
    for name, value in _on_everything(config.get()):
        headers.setdefault(name, value)
    return response


def _on_everything(settings: config.Settings) -> list[tuple[str, str]]:
    """The headers that depend on no page; serving.py puts them on what it refuses by itself."""
    found = [
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        # Another site's page neither shows nor reads what is here; what is meant for that says so.
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ]
    if settings.production and settings.https:
        # Other hosts of the operator's domain are bound only where the operator says so.
        others = "; includeSubDomains" if settings.hsts_subdomains else ""
        found.append(("Strict-Transport-Security", f"max-age=31536000{others}"))
    return found


def _keep_to_its_reader(response: Response) -> None:
    """What was made for somebody who is logged in stays in no cache, nor behind the Back button.

    Who is logged in was asked for by whatever depends on it, and is not asked for here. Files that are the
    same for everybody say so, and an order's page is behind its link, not behind a login: a phone that has
    lost its connection still shows it.
    """
    user = g.get("_login_user")
    told = response.cache_control
    for_one = user is not None and not user.is_anonymous and not (told.public or told.no_store)
    if for_one and request.blueprint != "order":
        response.headers["Cache-Control"] = "private, no-store"


def _policy(nonce: str, allowed: Mapping[str, tuple[str, ...]]) -> str:
    """Content-Security-Policy: what is ours, and what `allowed` names besides, by its directive."""
    ours = {
        "default-src": "'self'",
        "script-src": f"'self' 'nonce-{nonce}'",
        "style-src": f"'self' 'nonce-{nonce}'",
        "img-src": f"'self' data:{_logo_origin()}",
        "object-src": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "form-action": " ".join(("'self'", *_form_origins(), *_form_of_this_page())),
    }
    for directive, origins in allowed.items():
        ours[directive] = " ".join((ours.get(directive, "'self'"), *origins))
    return "; ".join(f"{directive} {sources}" for directive, sources in ours.items())


def _permissions(allowed: Mapping[str, tuple[str, ...]]) -> str:
    """Permissions-Policy: wallets are asked only on a page with a provider's frame for it."""
    frames = " ".join(f'"{origin}"' for origin in allowed.get("frame-src", ()))
    payment = f"(self {frames})" if frames else "()"
    return f"camera=(self), microphone=(), geolocation=(), payment={payment}"


def _logo_origin() -> str:
    """Where the operator's own logo is, if it is at another place."""
    parts = urlsplit(config.get().logo_url)
    return f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""


def _form_origins() -> tuple[str, ...]:
    """Where a form's answer may redirect: browsers hold `form-action` against the whole chain.

    The providers' payment pages, and the one where an organiser lets us use their account.
    """
    settings = config.get()
    own = settings.stripe_checkout_domain
    local = {base.rsplit("/", 1)[0] for base in (settings.stripe_api_base, settings.sumup_api_base) if base}
    return (
        "https://checkout.stripe.com",
        *([f"https://{own}"] if own else []),
        "https://checkout.sumup.com",
        "https://pay.sumup.com",
        "https://api.sumup.com",
        "https://auth.sumup.com",
        *sorted(local),
    )


def _form_of_this_page() -> tuple[str, ...]:
    """Where the one form goes that this page carries for a provider, and no other page does."""
    origin = g.get("form_origin", "")
    return (origin,) if origin else ()


def _domain_error(error: DomainError) -> tuple[str | Response, int] | Response:
    if is_for_api():
        return api_errors.of_rule(error)
    status = 404 if isinstance(error, NotFound) else 400
    return _error_page(status, error.message, error.code)


def _data_error(error: DataError) -> tuple[str | Response, int]:
    """What the database cannot even look for, such as a text with a NUL, is the request's fault."""
    extensions.db.session.rollback()
    return _error_page(400, "That request could not be read.")


_BUSY = (
    "Something else is in the way just now, so this could not be finished. Wait a few seconds, then send it "
    "again: that is safe, nothing is bought or charged twice."
)


def _database_error(error: SQLAlchemyError) -> Response:
    """What the database cannot do now it can in a moment: a provider rings again, a person tries again."""
    if not blocking.passes(error):
        raise error
    blocking.forget()
    kind = type(getattr(error, "orig", None) or error).__name__
    structlog.get_logger(__name__).warning("database_busy", error=kind, path=logs.safe_path(request.path))
    try:
        response = make_response(_error_page(503, _BUSY, "busy"))
    except SQLAlchemyError:
        # Not even who is logged in can be read.
        blocking.forget()
        response = Response(_BUSY, 503, content_type="text/plain; charset=utf-8")
    response.headers["Retry-After"] = str(blocking.RETRY_AFTER)
    return response


def _http_error(error: HTTPException) -> tuple[str | Response, int] | Response:
    if error.response is not None:
        return error.get_response()  # type: ignore[return-value]
    if is_for_api():
        return api_errors.of_http(error)
    words = {
        400: "That request could not be read.",
        403: "This page is not for this account.",
        404: "There is nothing at this address.",
        405: "This address is not meant to be used that way.",
        413: "That is more than this address takes. Send less at once, or a smaller file.",
        429: "That was too often. Wait a minute, then try again.",
    }
    message = words.get(error.code or 500, "Something went wrong here.")
    return _error_page(error.code or 500, _form_words(error) if isinstance(error, CSRFError) else message)


def _form_words(error: CSRFError) -> str:
    """Why a form was not taken, and what to do about it."""
    if error.description == extensions.FormGuard.FOREIGN:
        return "This form came from another site, so nothing was done. Open the page here, and send it again."
    if error.description == extensions.FormGuard.NO_SESSION and not request.cookies:
        host = urlsplit(config.get().public_url).hostname
        return (
            "Your browser sent no cookie, so this form could not be taken, and nothing was done. "
            f"Allow cookies for {host} in your browser's settings, then go back, reload the page, "
            "and send the form again."
        )
    return "This form was open for too long. Go back, reload the page, and send it again."


def _error_page(status: int, message: str, code: str = "") -> tuple[str | Response, int]:
    if is_for_api():
        return api_errors.answer(status, message, code), status
    if wants_json():
        return jsonify(error=code or status, message=message), status
    return render_template("error.html", status=status, message=message), status
