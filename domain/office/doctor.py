"""What is wrong with this installation, in words, each with what to do about it.

Every look is bounded by a timeout and catches only what it expects to go wrong: the doctor must be able to
speak when half of Kassa is down.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
from alembic.script import ScriptDirectory
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

import config
from domain import addresses, blocking, jobs, money
from domain.catalogue import house_account
from domain.connections import linked_accounts
from domain.office import (
    account_findings,
    backup_findings,
    clock_skew,
    database_connections,
    front_findings,
    health,
    invariants,
    kaspi_findings,
    wallet_buttons,
)
from domain.office.finding import FAIL as FAIL
from domain.office.finding import OK as OK
from domain.office.finding import WARN as WARN
from domain.office.finding import Finding as Finding
from domain.office.finding import failed as failed
from domain.office.finding import table as table
from domain.orders import publishing
from domain.post import transport
from domain.post.transport import MailError
from domain.providers import connecting, contract, knowledge, registry
from domain.providers.contract import ProviderError
from domain.tickets import fonts
from extensions import db, queue

TIMEOUT = 5
POSTGRES_LEAST = 130000
REDIS_LEAST = (6, 2)
DISK_LEAST = 200 * 1024 * 1024
# Stripe's signatures and idempotency keys bear some seconds; its webhooks are refused beyond five minutes.
SKEW_WARN, SKEW_FAIL = 30, 240


_STRIPE = "https://api.stripe.com/healthcheck"
_SUMUP = "https://api.sumup.com"
# What to choose for Stripe's webhook: each tells that something about a payment may have changed.
WEBHOOK_EVENTS = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.canceled",
    "charge.refunded",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)


def findings(scheduled: Iterable[str] = ()) -> list[Finding]:
    """Look at everything; takes some seconds. `scheduled` are the job ids that rq-scheduler must have."""
    found = [*_settings(), *_mail(), *_database()]
    if any(f.code == "database" and f.state == FAIL for f in found):
        return [*found, _redis(scheduled), *_tickets(), _disk()]
    return [
        *found,
        _redis(scheduled),
        *_providers(),
        *_connections(),
        _house_account(),
        *_running(),
        *_invariants(),
        *_tickets(),
        _disk(),
    ]


# --- Settings -------------------------------------------------------------------------------------------


def _settings() -> list[Finding]:
    accounts = (*_stripe(), _sumup_account(), kaspi_findings.settings())
    return [_public_url(), front_findings.look(), *accounts, _listing_fee(), *_addresses()]


def _public_url() -> Finding:
    url, title = config.get().public_url, "Public address"
    if config.get().development or (config.get().https and "localhost" not in url):
        return Finding("public_url", title, OK, f"Links begin with {url}.")
    fix = "Set PUBLIC_URL to the address that buyers type, beginning with https://."
    if "localhost" in url:
        return Finding("public_url", title, FAIL, f"Links in mails would lead to {url}.", fix)
    return Finding("public_url", title, FAIL, f"{url} is not encrypted; logins and order links leak.", fix)


def _stripe() -> list[Finding]:
    keys = _stripe_keys()
    return [keys, _publishable_key(), _webhook()] if config.get().stripe_ready else [keys]


def _stripe_keys() -> Finding:
    settings, title = config.get(), "Stripe keys"
    if not settings.stripe_ready and (settings.sumup_ready or settings.sumup_connects):
        return Finding("stripe_keys", title, OK, "No key is set: what is sold here is paid through SumUp.")
    if not settings.stripe_ready and settings.kaspi_ready:
        return Finding("stripe_keys", title, OK, "No key is set: what is sold here is paid through Kaspi.")
    if not settings.stripe_ready:
        return Finding(
            "stripe_keys",
            title,
            FAIL,
            "No key is set, so nothing that costs money is sold.",
            "Set STRIPE_SECRET_KEY and STRIPE_PUBLISHABLE_KEY: dashboard.stripe.com > Developers > API keys.",
        )
    if settings.livemode:
        return Finding("stripe_keys", title, OK, "Live keys are set: payments move real money.")
    if settings.development:
        return Finding("stripe_keys", title, OK, "Test keys are set: no real money.")
    return Finding(
        "stripe_keys",
        title,
        WARN,
        "Test keys are set, so buyers get tickets without real money.",
        "Set the two live keys when you are ready to sell.",
    )


def _publishable_key() -> Finding:
    title = "Stripe publishable key"
    if config.get().stripe_publishable_key:
        return Finding("publishable_key", title, OK, "It is set.")
    fix = "Set STRIPE_PUBLISHABLE_KEY, of the same mode as the secret key."
    return Finding("publishable_key", title, WARN, "It is not set. Stripe's own page works without it.", fix)


def _sumup_account() -> Finding:
    """The platform's own account; those of organisers are looked at as connections."""
    settings, title = config.get(), "SumUp account"
    if not settings.sumup_ready:
        return Finding("sumup_account", title, OK, "The platform has none. Set SUMUP_API_KEY to have one.")
    words = f"The platform's is {settings.sumup_merchant_code}"
    if not settings.sumup_test_account:
        return Finding("sumup_account", title, OK, f"{words}: payments move real money.")
    if settings.development:
        return Finding("sumup_account", title, OK, f"{words}, an account for tests: no real money.")
    words += ", an account for tests, so buyers get tickets without real money."
    fix = "Set the key of a real account, and remove SUMUP_TEST_ACCOUNT, when you are ready to sell."
    return Finding("sumup_account", title, WARN, words, fix)


def _listing_fee() -> Finding:
    """Whether organisers can pay what publishing an event costs. An amount that is none stops the start."""
    title, price = "Listing fee", publishing.fee()
    if not price.amount_minor:
        return Finding("listing_fee", title, OK, "Organisers publish events for nothing.")
    words = f"Publishing an event costs {money.show(price.amount_minor, price.currency)}"
    ways = publishing.ways_for_everybody(price)
    if ways:
        labels = " or ".join(way.label for way in ways)
        return Finding("listing_fee", title, OK, f"{words}, paid by {labels}.")
    fix = f"Raise LISTING_FEE, or choose a LISTING_FEE_CURRENCY other than {price.currency}."
    return Finding("listing_fee", title, FAIL, f"{words}, which no way to pay that is set up takes.", fix)


def _addresses() -> list[Finding]:
    """Who is written to. Where a variable is not set another stands in, so buyers always see an address."""
    settings, found = config.get(), []
    for code, title, variable, value, words in (
        ("admin_email", "Admin's address", "ADMIN_EMAIL", settings.admin_email, "is the first admin."),
        ("alert_email", "Alerts", "PAYMENT_ALERT_EMAIL", settings.alert_email, "gets the payment alerts."),
        ("support_email", "Support", "SUPPORT_EMAIL", settings.support_email, "answers buyers in trouble."),
    ):
        if value and (settings.development or not value.endswith("@example.org")):
            found.append(Finding(code, title, OK, f"{addresses.shown(value)} {words}"))
        else:
            missing = "No address is set." if not value else f"{value} is only an example."
            found.append(
                Finding(code, title, WARN, missing, f"Set {variable} to an address that somebody reads.")
            )
    return found


def _webhook() -> Finding:
    title = "Stripe webhook secret"
    if config.get().stripe_webhook_secret:
        return Finding("webhook_secret", title, OK, "It is set, so Stripe can ring when something happens.")
    return Finding(
        "webhook_secret",
        title,
        WARN,
        "It is not set. Payments are still verified on return and by the sweep.",
        f"In dashboard.stripe.com > Developers > Webhooks add {config.get().public_url}/stripe/webhook/ and "
        "set its signing secret as STRIPE_WEBHOOK_SECRET.",
    )


# --- Mail -----------------------------------------------------------------------------------------------


def _mail() -> list[Finding]:
    settings, title = config.get(), "Mail"
    if not settings.mail_ready:
        return [
            Finding(
                "mail",
                title,
                FAIL,
                "No way to send mail is set, so nothing that costs money is sold.",
                "Set MAIL_SERVER with its MAIL_ settings, or MAIL_API_KEY for sending over HTTPS.",
            )
        ]
    try:
        with transport.transport() as way:
            way.ready()
    except MailError as error:
        fix = "Check the MAIL_ settings. Where the host blocks SMTP, use MAIL_API_KEY."
        return [Finding("mail", title, FAIL, f"It would not leave: {error}", fix)]
    words = f"{transport.describe()} answers. Alerts go to {addresses.shown(settings.alert_email)}."
    if transport.is_in_clear():
        fix = "Set MAIL_USE_TLS (port 587) or MAIL_USE_SSL (port 465): mails carry links that open things."
        return [Finding("mail", title, WARN, f"{words} But mails and the password go there in clear.", fix)]
    return [Finding("mail", title, OK, words)]


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()[:150]


# --- Database and Redis ---------------------------------------------------------------------------------


def _database() -> list[Finding]:
    try:
        version = int(db.session.scalar(text("SHOW server_version_num")) or 0)
        name = db.session.scalar(text("SHOW server_version"))
    except SQLAlchemyError as error:
        fix = "Check DATABASE_URL, and that the database runs and lets this machine in."
        return [Finding("database", "Database", FAIL, f"It does not answer: {type(error).__name__}.", fix)]
    finally:
        db.session.rollback()
    if version < POSTGRES_LEAST:
        fix = "Move to PostgreSQL 13 or newer."
        return [Finding("database", "Database", FAIL, f"PostgreSQL {name} is too old.", fix), _migrations()]
    answers = Finding("database", "Database", OK, f"PostgreSQL {name} answers.")
    return [
        answers,
        _database_clock(),
        _capacity(),
        backup_findings.programs_fit(),
        _migrations(),
        *account_findings.look(),
        *_transactions(),
    ]


def _capacity() -> Finding:
    """Whether the server lets in as many connections as all processes may open."""
    title = "Room in the database"
    try:
        room = database_connections.look()
    except SQLAlchemyError as error:
        return Finding("capacity", title, WARN, f"They cannot be compared: {type(error).__name__}.")
    return Finding(
        "capacity",
        title,
        OK if room.fits else FAIL,
        room.words,
        "" if room.fits else database_connections.FIX,
    )


def _transactions() -> list[Finding]:
    """Transactions of others that do not end: they keep buyers waiting for what they hold."""
    title = "Transactions"
    try:
        hung = blocking.hung()
    except SQLAlchemyError as error:
        db.session.rollback()
        words = f"Which are open cannot be read: {type(error).__name__}."
        return [Finding("transactions", title, WARN, words, "Let this role read pg_stat_activity.")]
    found = []
    for each in hung:
        words = f"{each.words}; {each.waiting} wait for it."
        words += f" Its last statement: {' '.join(each.statement.split())}" if each.statement else ""
        fix = f"Ask whose it is. This ends it, and undoes what it did: `{each.command}`."
        found.append(Finding("transactions", title, FAIL, words, fix))
    return found or [Finding("transactions", title, OK, "None hangs.")]


def _migrations() -> Finding:
    title, fix = "Migrations", "Run `flask db upgrade`."
    heads = ScriptDirectory(str(config.ROOT / "migrations")).get_heads()
    try:
        current = set(db.session.scalars(text("SELECT version_num FROM alembic_version")))
    except SQLAlchemyError:
        return Finding("migrations", title, FAIL, "The database has no tables of ours.", fix)
    finally:
        db.session.rollback()
    if current != set(heads):
        words = f"The database is at {', '.join(current) or 'nothing'}, this program at {', '.join(heads)}."
        return Finding("migrations", title, FAIL, words, fix)
    return Finding("migrations", title, OK, f"The tables are this program's ({', '.join(heads)}).")


def _redis(scheduled: Iterable[str]) -> Finding:
    title = "Redis"
    try:
        facts: Any = queue.redis.info("server")
        version = str(facts["redis_version"])
        members: Any = queue.redis.zrange(jobs.SCHEDULED, 0, -1)
        there = {member.decode() for member in members}
    except RedisError as error:
        fix = "Check REDIS_URL. Buying goes on; sweeps and mail wait, or run `flask payments sweep` by cron."
        return Finding("redis", title, FAIL, f"It does not answer: {_brief(error)}.", fix)
    if tuple(int(part) for part in version.split(".")[:2]) < REDIS_LEAST:
        fix = "RQ needs Redis 6.2 or newer."
        return Finding("redis", title, FAIL, f"Redis {version} is too old.", fix)
    missing = sorted(set(scheduled) - there)
    if missing:
        fix = "Start `flask clock`: it puts them back within a minute."
        return Finding("redis", title, FAIL, f"Not scheduled: {', '.join(missing)}.", fix)
    return Finding("redis", title, OK, f"Redis {version} answers, {len(there)} jobs are scheduled.")


# --- Providers ------------------------------------------------------------------------------------------


def _providers() -> list[Finding]:
    used = [registry.get(name) for name in registry.names()]
    used = [provider for provider in used if not provider.immediate and provider.ready]
    # First the connections: who does not answer is asked nothing more, so that the page is waited for once.
    connections = [_provider(provider) for provider in used]
    buttons = [finding for provider in used for finding in wallet_buttons.look(provider)]
    return [*connections, *buttons, *([_clock_skew()] if used else [])]


def _provider(provider: contract.Provider) -> Finding:
    code, title = f"{provider.name}_reachable", f"Connection to {registry.title(provider.name)}"
    try:
        facts = provider.health()
    except ProviderError as error:
        fix = "Check the key, and that this machine may reach the provider. Its status page tells of outages."
        return Finding(code, title, FAIL, f"No usable answer: {error}", fix)
    words = f"Account {facts.get('account')}, {facts.get('mode')} mode"
    words += f", API {facts['api_version']}." if "api_version" in facts else "."
    if facts.get("charges_enabled") is False:
        fix = "Finish the account's set-up in the provider's dashboard."
        return Finding(code, title, FAIL, f"{words} It may not take payments yet.", fix)
    if facts.get("test_account") not in (None, facts.get("mode") == "test"):
        said = "an account for tests" if facts["test_account"] else "an account that takes real money"
        fix = "Set SUMUP_TEST_ACCOUNT to what the account is, or the key of another account."
        return Finding(code, title, FAIL, f"{words} The provider says that it is {said}.", fix)
    return kaspi_findings.of_health(code, title, words, facts) or Finding(code, title, OK, words)


def _clock_skew() -> Finding:
    """This machine's clock against the providers', which judge how long a payment page may live."""
    settings, title, agrees = config.get(), "This machine's clock", []
    for ready, code, name, address in (
        (settings.stripe_ready, "stripe", "Stripe's", settings.stripe_api_base or _STRIPE),
        (settings.sumup_ready, "sumup", "SumUp's", settings.sumup_api_base or _SUMUP),
    ):
        if ready and not knowledge.may_answer(code):
            return Finding("clock_skew", title, WARN, f"{name} could not be read: it does not answer.")
        try:
            ahead = clock_skew.ahead_of(address, time.time) if ready else 0
        except (httpx.HTTPError, ValueError) as error:
            return Finding("clock_skew", title, WARN, f"{name} could not be read: {_brief(error)}.")
        if abs(ahead) > SKEW_WARN:
            state = FAIL if abs(ahead) > SKEW_FAIL else WARN
            return Finding("clock_skew", title, state, clock_skew.say(ahead, name), clock_skew.FIX)
        agrees += [name] if ready else []
    words = f"It agrees with {' and '.join(agrees)}." if agrees else "No provider’s was asked."
    return Finding("clock_skew", title, OK, words)


def _database_clock() -> Finding:
    title, ahead = "Clock and database", clock_skew.ahead_of_database(time.time)
    if abs(ahead) <= SKEW_WARN:
        return Finding("database_clock", title, OK, "The database's clock agrees with this machine's.")
    return Finding("database_clock", title, WARN, clock_skew.say(ahead, "the database's"), clock_skew.FIX)


# --- Connected accounts ---------------------------------------------------------------------------------


def _connections() -> list[Finding]:
    """Whether organisers can connect accounts, and whether those that are connected can be spoken for."""
    found = [_connector(name) for name in connecting.names()]
    try:
        seen = linked_accounts.summary()
    except SQLAlchemyError as error:
        words = f"They cannot be read: {type(error).__name__}."
        return [*found, Finding("connections", "Connections", FAIL, words, "Run `flask db upgrade`.")]
    finally:
        db.session.rollback()
    return [*found, _token_keys(seen), _broken(seen)]


def _connector(name: str) -> Finding:
    connector = connecting.get(name)
    title, uri = f"{connector.label} for organisers", linked_accounts.redirect_uri(name)
    if connector.ready:
        words = (
            f"They can connect accounts. The app at {connector.label} needs the redirect URI {uri}, exactly."
        )
    else:
        words = f"They cannot connect accounts: no app is set. Its redirect URI would be {uri}."
    return Finding(f"{name}_connect", title, OK, words)


def _token_keys(seen: linked_accounts.Summary) -> Finding:
    title = "Keys of tokens"
    if seen.unreadable:
        words = f"No key of the ring opens the tokens of {', '.join(seen.unreadable[:5])}."
        fix = (
            "Put the old key back into TOKEN_KEYS behind the new one, and run `flask connections rotate`. "
            "Where it is lost, the organisers connect again."
        )
        return Finding("token_keys", title, FAIL, words, fix)
    ring = (
        f"{len(config.get().token_keys)} in TOKEN_KEYS" if config.get().token_keys else "made of SECRET_KEY"
    )
    return Finding("token_keys", title, OK, f"They open every stored token ({ring}).")


def _broken(seen: linked_accounts.Summary) -> Finding:
    title = "Connections"
    if seen.broken:
        words = f"Broken: {', '.join(seen.broken[:5])}; {seen.waiting} payments wait for them."
        fix = "Their organisers were asked by mail to connect again: see /admin/connections."
        return Finding("connections", title, WARN, words, fix)
    return Finding("connections", title, OK, f"{seen.in_use} are in use, none is broken.")


# --- Running parts --------------------------------------------------------------------------------------

_PARTS: Mapping[str, tuple[str, str]] = {
    "worker": ("Worker", "Start `flask worker`: it sends mail and runs the sweep."),
    "clock": ("Clock", "Start `flask clock`: it starts the sweep every few minutes."),
    "sweep": ("Sweep", "Run `flask payments sweep --verbose` once, and see that clock and worker run."),
    "outbox": ("Mail waiting", "See /admin/mail; `flask mail test ADDRESS` shows what the server says."),
    "incidents": ("Money inbox", "Decide them at /admin/incidents."),
    "rings": ("Rings", "See what was in the way at /admin/rings, and have them looked at again there."),
}
_STATES = {health.OK: OK, health.STARTING: WARN, health.DEGRADED: FAIL, health.DOWN: FAIL}


def _running() -> list[Finding]:
    try:
        report = health.report(grace=False)
    except SQLAlchemyError as error:
        return [Finding("running", "Running parts", FAIL, f"They cannot be read: {type(error).__name__}.")]
    found = []
    for name, (title, fix) in _PARTS.items():
        check = report.checks[name]
        state = _STATES[check.state]
        found.append(Finding(name, title, state, check.words, fix if state != OK else ""))
    return found


def _invariants() -> list[Finding]:
    title = "Invariants"
    try:
        answers = invariants.run()
    except SQLAlchemyError as error:
        db.session.rollback()
        return [Finding("invariants", title, FAIL, f"They cannot be checked: {type(error).__name__}.")]
    fix = "This is a bug or a hand in the database. Read the orders' timelines, and do not mend rows by hand."
    found = []
    for violation in answers.violations:
        rows = ", ".join(str(row.get("row")) for row in violation.sample[:5])
        found.append(Finding(f"invariant_{violation.code}", title, FAIL, f"{violation.words} ({rows})", fix))
    if answers.unchecked:
        words = (
            f"Not checked, as they took longer than {invariants.SECONDS} s: {', '.join(answers.unchecked)}."
        )
        found.append(
            Finding("invariants_unchecked", title, WARN, words, "See what the database is busy with.")
        )
    return found or [Finding("invariants", title, OK, f"All {len(invariants.INVARIANTS)} hold.")]


def _house_account() -> Finding:
    """Whose money comes into the house's account besides its own."""
    title, names = "Organisers' sales", house_account.served()
    if config.get().house_account_for_organisers:
        words = "HOUSE_ACCOUNT_FOR_ORGANISERS is on: every organiser may sell through the house's account."
    elif names:
        words = (
            f"{', '.join(names)} may sell through the house's account. You owe them what it takes; each "
            "organiser's page tells how much, and ends it."
        )
    else:
        words = "Organisers are paid into accounts of their own. Each one's page lets them use the house's."
    return Finding("house_account", title, OK, words)


# --- This machine ---------------------------------------------------------------------------------------


def _tickets() -> list[Finding]:
    """What WeasyPrint needs from the system; without harfbuzz-subset its PDFs carry whole fonts, or fail."""
    title = "Ticket PDFs"
    fonts.prepare()
    try:
        from weasyprint.text import ffi
    except (OSError, ImportError) as error:
        fix = "Install pango: `apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0`."
        return [Finding("weasyprint", title, FAIL, f"WeasyPrint cannot be loaded: {_brief(error)}.", fix)]
    if ffi.harfbuzz_subset is None:
        fix = "`apt-get install libharfbuzz-subset0` (Heroku: in Aptfile; Railway: in railpack.json)."
        words = "libharfbuzz-subset is missing: every ticket PDF carries whole fonts and is slow and large."
        return [Finding("harfbuzz_subset", title, FAIL, words, fix)]
    return [Finding("weasyprint", title, OK, "WeasyPrint and libharfbuzz-subset are there."), _fonts()]


def _fonts() -> Finding:
    """Whether names of every script can be drawn."""
    title = "Fonts"
    missing = fonts.missing()
    if not missing:
        return Finding("fonts", title, OK, "Names of every script can be drawn on tickets.")
    packages = [
        *(["fonts-dejavu-core"] if {"Latin", "Cyrillic"} & set(missing) else []),
        *([fonts.CJK_PACKAGE] if set(fonts.CJK) & set(missing) else []),
    ]
    fix = f"`apt-get install {' '.join(packages)}` (Heroku: in Aptfile; Railway: in railpack.json)."
    fix = fix if packages else "Install Kassa's packages again: pip brings these fonts."
    words = f"No font here draws {', '.join(missing)}: such names are boxes on tickets."
    return Finding("fonts", title, WARN, words, fix)


def _disk() -> Finding:
    places = [
        Path(tempfile.gettempdir()),
        *([Path(config.get().log_file).parent] if config.get().log_file else []),
    ]
    for place in places:
        try:
            free = shutil.disk_usage(place).free
        except OSError as error:
            return Finding("disk", "Disk", WARN, f"{place} cannot be read: {error.strerror}.")
        if free < DISK_LEAST:
            return Finding("disk", "Disk", WARN, f"{place} has {free // 2**20} MB left.", "Make room there.")
    return Finding("disk", "Disk", OK, f"There is room ({socket.gethostname()}).")
