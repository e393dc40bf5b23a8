"""The operator's edge: `flask payments sweep --verbose`, `flask doctor`, and the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TextIO
from uuid import uuid4

import click
import flask_migrate
from flask import Flask
from flask.cli import AppGroup, with_appcontext

import config
import worker as time_edge
from domain import addresses, blocking, money, urls
from domain.backups import commands, lives, taking
from domain.connections import linked_accounts
from domain.errors import DomainError
from domain.ledger import adjustments
from domain.office import (
    backfill,
    demo,
    demo_api,
    doctor,
    erasures,
    invariants,
    overview,
    wallet_buttons,
)
from domain.payments import lookup, poll_schedule, reconciling, refunds
from domain.people import accounts
from domain.post import outbox
from domain.providers import registry
from domain.providers.contract import Devices, ProviderError
from domain.security import second_factors
from domain.sweep import sweeping
from models import Payment

payments_group = AppGroup("payments", help="Ask the providers about payments, and send money back.")


@payments_group.command("sweep")
@click.option("--verbose", is_flag=True, help="Show each payment's checks, age and last error.")
@click.option(
    "--all", "everything", is_flag=True, help="Ask about every payment that is not final, due or not."
)
def payments_sweep(verbose: bool, everything: bool) -> None:
    """Verify what is due and deliver what is owed. Needs no Redis; made for cron too."""
    run = sweeping.run("command", tell=click.echo, verbose=verbose, everything=everything)
    if run.errors:
        click.echo(f"{run.errors} could not be read; they are asked about again in the next sweep.", err=True)


@payments_group.command("verify")
@click.argument("code")
def payments_verify(code: str) -> None:
    """Ask the provider about one order (ORD-…), payment reference or provider id, and settle what it says."""
    payment = _payment(code)
    outcome = reconciling.reconcile(payment.id, door="command", patient=True)
    payment = _payment(code)
    amount = money.show(payment.amount_minor, payment.currency)
    click.echo(f"Order {payment.order.code}: {outcome.verdict}")
    click.echo(f"  Payment {payment.reference} ({payment.provider}, {amount}): {payment.state}")
    click.echo(f"  Order state: {payment.order.state}")
    if payment.reason:
        click.echo(f"  Reason: {payment.reason}")
    if outcome.error is not None:
        raise click.ClickException(f"The provider gave no usable answer: {outcome.error}")


@payments_group.command("pending")
def payments_pending() -> None:
    """List the newest payments without a final word, with how they were polled."""
    for payment in overview.payments().rows:
        seen = overview.polled(payment)
        polls = "polled" if seen.needed else "not polled"
        click.echo(
            f"{payment.order.code}: {payment.provider} {payment.state}, {polls}, {payment.poll_count} polls, "
            f"{seen.elapsed_minutes:.1f} of {payment.max_poll_duration_minutes} minutes"
            + (f", {payment.last_error}" if payment.last_error else "")
        )


@payments_group.command("stop")
@click.argument("code")
@click.option("--reason", required=True, help="Kept on the order's timeline.")
def payments_stop(code: str, reason: str) -> None:
    """Stop polling a payment until it closes; then it is read once more."""
    payment = _payment(code)
    with _words_of_the_domain():
        poll_schedule.stop_polling(payment.id, reason, None, door="command")
    click.echo(f"Payment {payment.reference} is read next when it closes.")


@payments_group.command("extend")
@click.argument("code")
@click.argument("minutes", type=int)
@click.option("--note", required=True, help="Kept on the order's timeline.")
def payments_extend(code: str, minutes: int, note: str) -> None:
    """Give an unpaid payment MINUTES more before it is closed, and go on polling it."""
    payment = _payment(code)
    with _words_of_the_domain():
        poll_schedule.extend(payment.id, minutes, None, note, door="command")
    minutes = _payment(code).max_poll_duration_minutes
    click.echo(f"Payment {payment.reference} is polled for {minutes} minutes in all.")


@payments_group.command("refund")
@click.argument("code")
@click.option("--amount", help="How much, such as 12.50. Without it: all that is left.")
@click.option("--reason", required=True, help="Kept with the refund and on the timeline.")
def payments_refund(code: str, amount: str | None, reason: str) -> None:
    """Send money back for a paid order (ORD-…) or payment reference."""
    payment = _payment(code)
    try:
        minor = (
            money.parse(amount, payment.currency) if amount is not None else refunds.refundable_minor(payment)
        )
        refund = refunds.request(payment.id, minor, actor_id=None, reason=reason)
    except DomainError as error:
        raise click.ClickException(error.message) from error
    click.echo(f"Refund of {money.show(refund.amount_minor, refund.currency)}: {refund.state}")
    if refund.failure_reason:
        raise click.ClickException(refund.failure_reason)


def _payment(code: str) -> Payment:
    found = lookup.by_code(code.strip())
    if found is None:
        raise click.ClickException(
            f"There is no payment for “{code}”. Give an order code such as ORD-7KQ2MPXA."
        )
    return found


# --- The demo -------------------------------------------------------------------------------------------

demo_group = AppGroup("demo", help="Data to try Kassa with; in development only.")


@demo_group.command("seed")
def demo_seed() -> None:
    """Make the demo's accounts and events, as far as they are missing."""
    with _words_of_the_domain():
        demo.seed()
    people = ", ".join(f"{name}@example.org" for name in demo.NAMES)
    click.echo(f"The demo is there. Log in as {people} with the password {demo.PASSWORD}.")


@demo_group.command("event")
@click.option("--slug", required=True, help="Its address: /events/<slug>.")
@click.option("--capacity", type=click.IntRange(min=0), default=100, show_default=True)
@click.option("--price-minor", type=click.IntRange(min=0), default=2500, show_default=True)
@click.option("--currency", default="EUR", show_default=True)
@click.option("--provider", help="The only way to pay that is offered; without it, all are.")
def demo_event(slug: str, capacity: int, price_minor: int, currency: str, provider: str | None) -> None:
    """Make, or change, a published event with one ticket type, and print its address."""
    with _words_of_the_domain():
        made = demo.event(
            slug, capacity=capacity, price_minor=price_minor, currency=currency, provider=provider
        )
    click.echo(urls.event(made))


@demo_group.command("api")
def demo_api_lines() -> None:
    """Make an API key of the demo's buyer, and print calls to try it with, ready for a shell."""
    with _words_of_the_domain():
        ready = demo_api.prepare()
    for line in demo_api.lines(ready):
        click.echo(line)


users_group = AppGroup("users", help="Who may log in, and who is an admin.")


@users_group.command("admin")
@click.argument("email")
def users_admin(email: str) -> None:
    """Make EMAIL an admin, and print a link to choose a password with. It works once, for 7 days.

    A second factor that EMAIL has is taken away: it is lost. Every admin is told of that by mail.
    """
    with _words_of_the_domain():
        link = accounts.admin_link(email, resets=True)
    click.echo("Open this link within 7 days, and choose a password. It works once.", err=True)
    click.echo(link)


@users_group.command("list")
def users_list() -> None:
    """List everybody with more than a buyer's role, and the newest hundred buyers."""
    for user in accounts.people():
        notes = [] if user.confirmed_at else ["not confirmed"]
        notes += [] if user.is_active else ["closed"]
        said = f" ({', '.join(notes)})" if notes else ""
        click.echo(f"{user.role:<10} {addresses.shown(user.email)}{said}")


@users_group.command("erasures")
def users_erasures() -> None:
    """Print a line for each person who was forgotten: keep them beside the backups."""
    for line in erasures.lines():
        click.echo(line)


@users_group.command("erase-again")
@click.argument("lines", type=click.File())
def users_erase_again(lines: TextIO) -> None:
    """Forget again, after a restore, whoever the LINES of `flask users erasures` are about."""
    click.echo(erasures.again(lines).words)


# --- Wallets --------------------------------------------------------------------------------------------

wallet_group = AppGroup("wallet", help="Money in members' wallets, put in or taken out by hand.")
_KEY = click.option("--key", help="Once for each key: a command that is repeated with it does nothing.")
_WHY = click.option("--reason", required=True, help="The member reads it beside the amount.")


@wallet_group.command("add")
@click.argument("email")
@click.argument("amount")
@_WHY
@_KEY
def wallet_add(email: str, amount: str, reason: str, key: str | None) -> None:
    """Put AMOUNT, such as 12.50, into the wallet of EMAIL."""
    _adjust(email, amount, reason, key, takes=False)


@wallet_group.command("deduct")
@click.argument("email")
@click.argument("amount")
@_WHY
@_KEY
def wallet_deduct(email: str, amount: str, reason: str, key: str | None) -> None:
    """Take AMOUNT, such as 12.50, out of the wallet of EMAIL. Never more than is free in it."""
    _adjust(email, amount, reason, key, takes=True)


def _adjust(email: str, amount: str, reason: str, key: str | None, *, takes: bool) -> None:
    with _words_of_the_domain():
        user = adjustments.member(email)
        done = adjustments.adjust(user, amount, reason, takes=takes, key=key or uuid4().hex)
    click.echo(done.words)


# --- Connected accounts ---------------------------------------------------------------------------------

connections_group = AppGroup("connections", help="The accounts that organisers have connected.")


@connections_group.command("list")
def connections_list() -> None:
    """List the connected accounts, the broken ones first, with the payments that wait for them."""
    for seen in linked_accounts.for_admins():
        if seen.row is not None:
            waiting = f", {seen.waiting} payments wait" if seen.waiting else ""
            whose = f"{seen.row.account} {addresses.shown(seen.row.user.email)}"
            click.echo(f"{seen.state:<12} {seen.provider} {whose}{waiting}")


@connections_group.command("rotate")
def connections_rotate() -> None:
    """Encrypt every stored token anew under the first of TOKEN_KEYS. Fails if any cannot be read."""
    done = linked_accounts.rotate()
    click.echo(f"{done.done} connections are under the first key.")
    sealed, lost = second_factors.reseal()
    click.echo(f"{sealed} second factors are under the first key.")
    unreadable = [*done.unreadable, *([f"{lost} second factors"] if lost else [])]
    if unreadable:
        raise click.ClickException(
            f"Not readable with these TOKEN_KEYS, and left as they are: {', '.join(unreadable)}. "
            "Put their old key back behind the new one, and run this again."
        )


# --- Kaspi ----------------------------------------------------------------------------------------------

kaspi_group = AppGroup("kaspi", help="Setting up Kaspi's QR API.")


@kaspi_group.command("trade-points")
def kaspi_trade_points() -> None:
    """List the trade points of the account: their numbers, for KASPI_TRADE_POINT, and their names."""
    with _words_of_the_provider():
        for number, name in _devices().trade_points().items():
            click.echo(f"{number:<14} {name}")


@kaspi_group.command("register-device")
def kaspi_register_device() -> None:
    """Register this Kassa as a device at KASPI_TRADE_POINT, and print the KASPI_DEVICE_TOKEN to set."""
    with _words_of_the_provider():
        click.echo(f"KASPI_DEVICE_TOKEN={_devices().register_device()}")


def _devices() -> Devices:
    provider = registry.get("kaspi")
    if not isinstance(provider, Devices):
        raise click.ClickException("Set KASPI_MODE to r1, r2 or r3 first: the other modes know no devices.")
    return provider


@contextmanager
def _words_of_the_provider() -> Iterator[None]:
    """A provider that says no, or nothing, ends the command with its words and a non-zero exit."""
    try:
        yield
    except ProviderError as error:
        raise click.ClickException(str(error)) from error


# --- What is wrong --------------------------------------------------------------------------------------

stripe_group = AppGroup("stripe", help="What Stripe has to know of this Kassa.")


@stripe_group.command("register-domain")
@click.argument("domain", required=False, default="")
def stripe_register_domain(domain: str) -> None:
    """Register DOMAIN (PUBLIC_URL's), so that our pay page shows Apple Pay and Google Pay."""
    with _words_of_the_domain():
        known = wallet_buttons.register("stripe", domain)
    mode = "live" if known.livemode else "test"
    if known.problems:
        raise click.ClickException(f"{known.domain} is registered ({mode} mode). {' '.join(known.problems)}")
    click.echo(f"{known.domain} is registered for Apple Pay and Google Pay ({mode} mode).")


mail_group = AppGroup("mail", help="Whether mail leaves.")


@mail_group.command("test")
@click.argument("address")
def mail_test(address: str) -> None:
    """Send a test mail to ADDRESS now, and say what the mail server answered."""
    with _words_of_the_domain():
        click.echo(outbox.send_test(address))


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--end", "pid", type=int, help="End the hung transaction of this connection instead.")
@with_appcontext
def doctor_command(as_json: bool, pid: int | None) -> None:
    """Say in words what is wrong with this installation, and how to mend it. Fails if anything is."""
    if pid is not None:
        with _words_of_the_domain():
            blocking.end(pid)
        click.echo(f"Connection {pid} was closed, and its transaction undone.")
        return
    found = doctor.findings(job.id for job in time_edge.periodic())
    if as_json:
        click.echo(
            json.dumps({"ok": not doctor.failed(found), "findings": [asdict(f) for f in found]}, indent=2)
        )
    else:
        colours = {doctor.OK: "green", doctor.WARN: "yellow", doctor.FAIL: "red"}
        click.echo(doctor.table(found, lambda state, mark: click.style(mark, fg=colours[state], bold=True)))
    if doctor.failed(found):
        raise SystemExit(1)


@contextmanager
def _words_of_the_domain() -> Iterator[None]:
    """A rule that says no ends the command with its words and a non-zero exit."""
    try:
        yield
    except DomainError as error:
        raise click.ClickException(error.message) from error


@click.command("backup")
@click.option(
    "--to", "address", default="", help="A folder, a file, s3://bucket/prefix, or - for standard output."
)
@click.option(
    "--plain", is_flag=True, help="Write it unencrypted, though it has every buyer's address in it."
)
@with_appcontext
def backup_command(address: str, plain: bool) -> None:
    """Back the database up, encrypted to BACKUP_KEY: to BACKUP_TO, or where --to says."""
    with _words_of_the_domain():
        made = taking.take(address, plain=plain)
    if address != taking.STDOUT:
        click.echo(f"Written to {made.place}: {made.size or 0:,} bytes, SHA-256 {made.sha256}.")


@click.command("restore")
@click.argument("source")
@click.option(
    "--identity", type=click.File("r"), help="The file with the key that opens it (AGE-SECRET-KEY-1...)."
)
@click.option(
    "--check", is_flag=True, help="Restore into a database beside, run the invariants, and remove it."
)
@click.option(
    "--into", default="", help="With --check: an empty database of yours, by its postgresql:// address."
)
@click.option("--other-keys", is_flag=True, help="Go on though the keys set here are not the backup's.")
@click.option(
    "--epoch", default=1, help="The shop's last epoch, where no list of them lies beside the backup."
)
@click.option(
    "--erasures",
    "forgotten",
    type=click.File("r"),
    help="A list of `flask users erasures`, where none lies beside the backup.",
)
@with_appcontext
def restore_command(
    source: str,
    identity: TextIO | None,
    check: bool,
    into: str,
    other_keys: bool,
    epoch: int,
    forgotten: TextIO | None,
) -> None:
    """Restore SOURCE (a file, s3://bucket/name, or -) into the empty database of DATABASE_URL.

    The shop is closed then, until an admin has looked at what came back and opens it.
    """
    read = identity.read() if identity is not None else ""
    lines = forgotten.read() if forgotten is not None else ""
    wish = commands.Wish(source, read, other_keys, lines, epoch)
    with _words_of_the_domain():
        if check or into:
            if not commands.check(wish, into, judge=_is_well, tell=click.echo):
                raise click.ClickException("The backup can be restored, but what it holds is not sound.")
            click.echo("The backup can be restored, and every invariant holds in it.")
            return
        number = commands.restore(
            wish, upgrade=flask_migrate.upgrade, forget=_forgotten_again, tell=click.echo
        )
    click.echo(f"Restored. This is the shop's epoch {number}, and it is closed: open it at /admin/restored.")


@click.command("restored")
@click.option("--as-of", help="To when the database was put back: 2026-11-30 02:00, in UTC.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
def restored_command(as_of: str | None, yes: bool) -> None:
    """Tell that the host's own tools have put the database back: the shop is closed, and asks what it missed.

    For `psql`, `pg_restore` and a host's point in time; `flask restore` does it by itself.
    """
    moment = _moment(as_of) if as_of else lives.last_known()
    click.echo(f"The database was put back to {moment:%Y-%m-%d %H:%M} UTC.")
    if not yes:
        click.confirm("Close the shop, and ask every account what happened since?", abort=True)
    with _words_of_the_domain():
        number = lives.enter(moment)
    click.echo(f"This is the shop's epoch {number}, and it is closed: open it at /admin/restored.")


def _moment(typed: str) -> datetime:
    try:
        return datetime.fromisoformat(typed).replace(tzinfo=UTC)
    except ValueError as error:
        raise click.ClickException("Say the time as 2026-11-30 02:00, in UTC.") from error


def _forgotten_again(lines: list[str]) -> str:
    return erasures.again(lines).words


def _is_well(database: str) -> bool:
    """Bring another database's tables to this program's form, and ask the invariants there."""
    environ = {**os.environ, "DATABASE_URL": database}
    flask = [sys.executable, "-m", "flask", "--app", "app"]
    for arguments in (("db", "upgrade"), ("invariants",)):
        done = subprocess.run(
            [*flask, *arguments], env=environ, cwd=config.ROOT, capture_output=True, text=True
        )
        if done.returncode:
            click.echo((done.stdout or done.stderr)[-4000:], err=True)
            return False
    return True


@click.command("invariants")
@with_appcontext
def invariants_command() -> None:
    """Ask of the whole database what must always hold, and say what does not. Changes nothing."""
    answers = invariants.ask_all()
    for violation in answers.violations:
        click.echo(f"{violation.code}: {violation.words} {json.dumps(violation.sample[:3], default=str)}")
    for code in answers.unchecked:
        click.echo(f"{code} could not be asked in time.")
    if answers.violations or answers.unchecked:
        raise SystemExit(1)
    click.echo("Every invariant holds.")


@click.command("backfill")
@with_appcontext
def backfill_command() -> None:
    """Bring rows of earlier versions into today's forms, as a job does: addresses, and what is searched."""
    done = backfill.run(budget_seconds=3600)
    for table, number in sorted(done.rows.items()):
        click.echo(f"{table:<14} {number}")
    for users in backfill.twins():
        spelled = " and ".join(f"{user.email} (no. {user.id})" for user in users)
        click.echo(f"Two accounts of one address, which both go on: {spelled}")
    if done.more:
        click.echo("There is more: run it again.")


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Run the jobs: sweeps, mail, checks."""
    time_edge.run_worker()


@click.command("clock")
@with_appcontext
def clock() -> None:
    """Enqueue the jobs at their times; sweeps once at its start."""
    time_edge.run_clock()


def register(app: Flask) -> None:
    """Add every command to the application."""
    app.cli.add_command(payments_group)
    app.cli.add_command(demo_group)
    app.cli.add_command(users_group)
    app.cli.add_command(connections_group)
    app.cli.add_command(wallet_group)
    app.cli.add_command(kaspi_group)
    app.cli.add_command(stripe_group)
    app.cli.add_command(mail_group)
    app.cli.add_command(doctor_command)
    app.cli.add_command(backfill_command)
    app.cli.add_command(backup_command)
    app.cli.add_command(restore_command)
    app.cli.add_command(restored_command)
    app.cli.add_command(invariants_command)
    app.cli.add_command(worker)
    app.cli.add_command(clock)
