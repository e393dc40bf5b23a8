"""People: who they are, how they prove it, and what they may do.

Nothing here tells a stranger which addresses have accounts: registering, asking for a new password and a
wrong login answer the same, in about the same time. Whoever opens a link that was mailed to an address has
proven that the address is theirs; before that an account cannot be used, nor does it get anybody's orders.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import Select, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import joinedload, selectinload

import config
from domain import acting, addresses, audit, clock, folding, names
from domain.errors import DomainError
from domain.people import accounts, endings, factors
from domain.post import mail_requests, outbox
from domain.security import (
    devices,
    fronts,
    guesses,
    mailed_codes,
    one_time_links,
    passwords,
    rate_limits,
    whose,
)
from extensions import db, network, queue
from models import AuditArea, Deed, LinkPurpose, Order, Organiser, Role, User

ORDERS_PER_PAGE = 50
# Who is in the demo: see domain/office/demo.py. Everybody knows their password.
DEMO_ADDRESSES = frozenset(f"{name}@example.org" for name in ("admin", "organiser", "door", "buyer"))
_LONGEST_ADDRESS = 254
# Held while it is decided who is an admin: of several processes starting at once one prints a link, and two
# admins who demote each other do not both succeed.
_ADMINS_LOCK = 0x6B617373


# --- Finding people -------------------------------------------------------------------------------------


def find(email: str) -> User | None:
    """The user of an address, however it is spelled: see `domain/security/whose.py`."""
    return whose.find(email)


def by_confirmed_email(email: str) -> User | None:
    """The member who has proven that this address is theirs, and may use their account.

    Whose address is kept in a form by which mail went elsewhere may have proven that other one.
    """
    user = find(email)
    if user is None or user.confirmed_at is None or addresses.went_elsewhere(user.email):
        return None
    return user if user.is_active else None


def people() -> list[User]:
    """Everybody with more than a buyer's role, then the newest hundred buyers."""
    staff = select(User).where(User.role != Role.BUYER).order_by(User.role, User.email)
    buyers = select(User).where(User.role == Role.BUYER).order_by(User.id.desc()).limit(100)
    return [*db.session.scalars(staff), *db.session.scalars(buyers)]


@dataclass(frozen=True)
class OrderPage:
    """Some of a person's orders, the newest first. `older` is the id to ask for those before, if any."""

    orders: list[Order]
    older: int | None


def orders_of(user: User, before: int | None = None) -> OrderPage:
    """Up to ORDERS_PER_PAGE orders with their events and lines, in three queries however many there are."""
    query = (
        select(Order)
        .where(Order.user_id == user.id)
        .order_by(Order.id.desc())
        .limit(ORDERS_PER_PAGE + 1)
        .options(joinedload(Order.event), selectinload(Order.lines))
    )
    if before is not None:
        query = query.where(Order.id < before)
    found = list(db.session.scalars(query))
    page = found[:ORDERS_PER_PAGE]
    return OrderPage(page, page[-1].id if len(found) > ORDERS_PER_PAGE else None)


# --- Becoming a member ----------------------------------------------------------------------------------


def create(
    email: str, password: str, role: Role = Role.BUYER, name: str = "", *, confirmed: bool = True
) -> User:
    """Make an account as it is, without mails: for the demo and for tests. Commits.

    Raises DomainError `address_taken`.
    """
    address = addresses.normal(email)
    user = _insert(address, name, passwords.hashed(password), role, confirmed=confirmed)
    if user is None:
        raise DomainError("address_taken", f"{address} has an account already.")
    db.session.commit()
    return user


def register(email: str, password: str, name: str, *, client_address: str = "") -> None:
    """Make an account that its address still has to confirm, or mail whoever has it already. Commits.

    Answers the same in both cases. An address that was registered and never confirmed gets a link to choose
    the password with, for it is not known which of the two who registered it reads its mail.
    """
    address = addresses.normal(email)
    name = names.clean(name)
    passwords.check(password, address, words=[name])
    if not rate_limits.count(rate_limits.REGISTER_NETWORK, fronts.counted(network(client_address))):
        raise DomainError("too_many_accounts", "Too many new accounts from here. Try again in an hour.")
    kept = passwords.hashed(password)
    user = _insert(address, name, kept, Role.BUYER, confirmed=False)
    if user is not None:
        _mail_link(user, LinkPurpose.CONFIRM)
    elif (known := find(address)) is not None and known.is_active:
        known = one_time_links.lock(known.id)
        if known.confirmed_at is None:
            one_time_links.void(known, one_time_links.TO_CONFIRM)
        _mail_link(known, LinkPurpose.RESET, kind="already_registered")
    _commit()


def confirm(token: str, password: str, *, client_address: str = "") -> User:
    """Use a confirmation link: the account works, and has the orders its address made as a guest. Commits.

    The link proves that the address is read here, the password that the account was made here. Without it,
    whoever registers somebody else's address would only wait until its owner presses the button. The owner,
    who knows no password, chooses one with the same link: `reset`.
    """
    asked = one_time_links.look(token, one_time_links.TO_CONFIRM).user
    prove(asked, password, client_address=client_address)
    user = one_time_links.use(token, one_time_links.TO_CONFIRM)
    _refuse_disabled(user)
    one_time_links.void(user, one_time_links.TO_CONFIRM)
    _confirmed(user)
    _commit()
    return user


def _confirmed(user: User) -> None:
    user.confirmed_at = user.confirmed_at or clock.now()
    accounts.claim_for(user)


def _insert(address: str, name: str, kept: str, role: Role, *, confirmed: bool) -> User | None:
    """A new row in users, or None where the address has one, in whatever spelling. No commit."""
    if find(address) is not None:
        return None
    now = clock.now()
    values = {"email": address, "name": name, "password_hash": kept, "role": role, "created_at": now}
    values |= {"confirmed_at": now if confirmed else None, "folded": folding.of_texts([name, address])}
    made = db.session.execute(
        insert(User).values(values).on_conflict_do_nothing().returning(User.id)
    ).scalar_one_or_none()
    if made is not None and role is not Role.BUYER:
        _note_role(made, Deed.MADE, ("role", None, role))
    return db.session.get(User, made) if made is not None else None


def _note_role(user_id: int, deed: Deed, *changes: audit.Change) -> None:
    audit.note(AuditArea.ROLE, deed, "user", user_id, about_id=user_id, changes=changes)


# --- Logging in -----------------------------------------------------------------------------------------


class CodeNeeded(DomainError):
    """The password was right, and is not enough by itself: whose it is, and what is needed besides, in words.

    Code `code_needed`, or `wrong_code` where one came along that is not right.
    """

    def __init__(self, user: User, *, wrong: bool = False, mailed: bool = True) -> None:
        if wrong:
            super().__init__(
                "wrong_code",
                "That code is not right, or too old. Take the one in the newest of our mails, in the browser "
                "that asked for it.",
            )
        else:
            what = (
                f"We have mailed you a code of {mailed_codes.DIGITS} digits: type it to log in."
                if mailed
                else "Enough codes were mailed to you in this hour: type the newest that you asked for here, "
                "or have a link mailed to choose a new password with."
            )
            super().__init__(
                "code_needed",
                "There were many wrong passwords lately, at your account or from where you are, so the right "
                f"one is not enough by itself just now. {what}",
            )
        self.user, self.mailed = user, mailed


def authenticate(
    email: str,
    password: str,
    *,
    client_address: str = "",
    device: str = "",
    code: str | None = None,
    asked_in: str = "",
) -> User:
    """The user whose address and password these are. Commits.

    `device` is what the browser's cookie says (domain/security/devices.py), `code` one that was mailed,
    `asked_in` what only this browser knows, so that a mailed code is good in it alone.
    Raises DomainError `wrong_login` alike for an unknown address and a wrong password, `too_many_attempts`,
    and only to who knows the password `disabled`, `unconfirmed` (then the confirmation is mailed again), and
    CodeNeeded where a password alone does not do (then a code is mailed). Whoever has a second factor needs
    no such code: the caller asks for that.
    """
    user = find(email) if len(email) <= _LONGEST_ADDRESS else None
    who, place = _counted(user, email), _place(user, client_address, device)
    enough = guesses.begin(who, place)
    if not passwords.right(user.password_hash if user is not None else "", password) or user is None:
        raise DomainError(
            "wrong_login", "The e-mail address or the password is not right. Check both and try again."
        )
    guesses.was_right(who, place, enough=enough)
    _refuse_disabled(user)
    if user.confirmed_at is None:
        _mail_link(one_time_links.lock(user.id), LinkPurpose.CONFIRM)
        _commit()
        raise DomainError(
            "unconfirmed", "Confirm your e-mail address first: open the link that we have mailed you."
        )
    if not enough and user.second_factor_at is None:
        _ask_for_code(user, code, place, asked_in)
    if passwords.outdated(user.password_hash):
        user.password_hash = passwords.hashed(password)
    accounts.claim_for(user)
    db.session.commit()
    return user


def on_the_way_in(user_id: int, epoch: int) -> User | None:
    """The user who showed the right password a moment ago, unless it was changed, or they were closed."""
    user = db.session.get(User, user_id, populate_existing=True)
    return user if user is not None and user.is_active and user.login_epoch == epoch else None


def by_mailed_code(
    user_id: int, epoch: int, code: str, *, client_address: str = "", asked_in: str = ""
) -> User:
    """The user who showed the right password a moment ago, as `epoch` says, and now the mailed code. Commits.

    DomainError `wrong_code`, `too_many_codes`, and `login_over` where the password was changed meanwhile.
    """
    user = one_time_links.lock(user_id)
    if user.login_epoch != epoch or not user.is_active:
        raise DomainError("login_over", "That took too long. Log in again.")
    _ask_for_code(user, code, _place(user, client_address, ""), asked_in)
    accounts.claim_for(user)
    db.session.commit()
    return user


def _ask_for_code(user: User, code: str | None, place: guesses.Place, asked_in: str) -> None:
    """Go on where this is the code that was mailed. CodeNeeded else; without any, one is mailed. Commits."""
    if code is None:
        made = mailed_codes.make(one_time_links.lock(user.id), asked_in, place.network)
        if made is not None:
            key = f"user:{user.id}:login_code:{one_time_links.fingerprint(secrets.token_urlsafe(16))}"
            context = {"code": made, "link": f"{config.get().public_url}/account/forgot"}
            outbox.stage("login_code", key=key, to=user.email, user=user, context=context)
        _commit()
        raise CodeNeeded(user, mailed=made is not None)
    at = f"user:{user.id}@{place.counted}"
    if not rate_limits.count(rate_limits.CODE_ACCOUNT, at):
        raise DomainError("too_many_codes", "Too many wrong codes. Wait 15 minutes, then log in again.")
    if not mailed_codes.take(user, code, asked_in):
        raise CodeNeeded(user, wrong=True)
    rate_limits.forget(rate_limits.CODE_ACCOUNT, at)
    guesses.begin_again(_counted(user), place)


def _place(user: User | None, client_address: str, device: str) -> guesses.Place:
    """Where a guess comes from; the browser counts only where this account has logged in by it before."""
    found = devices.known(user, device) if user is not None else None
    return guesses.Place(network(client_address), str(found.id) if found is not None else "")


def _counted(user: User | None, typed: str = "") -> str:
    """What guesses are counted by: the account that was found, however its address was typed.

    Guesses at an address without an account are counted, too, or the limit would tell which have one.
    """
    return (
        f"user:{user.id}"
        if user is not None
        else f"nobody:{one_time_links.fingerprint(addresses.key(typed))}"
    )


def prove(user: User, password: str, *, client_address: str = "", device: str = "") -> None:
    """Count one guess at the user's password. DomainError `too_many_attempts`, or `wrong_password`.

    Whoever is asked here is logged in or reads the user's mail, so that the password alone always does.
    """
    who, place = _counted(user), _place(user, client_address, device)
    guesses.begin(who, place)
    if not passwords.right(user.password_hash, password):
        raise DomainError("wrong_password", "That password is not right. Try again.")
    guesses.was_right(who, place)


def _refuse_disabled(user: User) -> None:
    if not user.is_active:
        support = config.get().support_email
        raise DomainError("disabled", f"This account is closed. Write to {support} to have it opened again.")


# --- Passwords ------------------------------------------------------------------------------------------


def request_reset(email: str) -> None:
    """Ask for the mail of a link to choose a new password with; an unknown address gets nothing. Commits.

    The caller says the same in either case, and nothing is done here that depends on it.
    """
    mail_requests.ask(mail_requests.RESET, email)
    _commit()


def reset(token: str, password: str, *, client_address: str = "", device: str = "") -> User:
    """Use a link to set a new password: it confirms the address and ends every other session. Commits.

    Whoever stopped their own logins by guessing may go on. What others did from elsewhere stays counted.
    """
    _check_password(one_time_links.look(token, one_time_links.TO_CHOOSE_A_PASSWORD).user, password)
    kept = passwords.hashed(password)
    user = one_time_links.use(token, one_time_links.TO_CHOOSE_A_PASSWORD)
    _refuse_disabled(user)
    _set_password(user, kept)
    _confirmed(user)
    _commit()
    guesses.begin_again(_counted(user), _place(user, client_address, device))
    return user


def change_password(user: User, old: str, new: str, *, client_address: str = "", device: str = "") -> None:
    """Set a new password for who knows the old one, and end every other session. Commits.

    The caller logs the user in again: their own session has ended too.
    """
    prove(user, old, client_address=client_address, device=device)
    _check_password(user, new)
    kept = passwords.hashed(new)
    _set_password(one_time_links.lock(user.id), kept)
    _commit()


def _check_password(user: User, password: str) -> None:
    """Refuse a password that is too weak for this member. The demo's accounts keep what everybody knows."""
    if is_demo(user):
        return
    sells_as = db.session.scalar(select(Organiser.name).where(Organiser.user_id == user.id)) or ""
    passwords.check(password, user.email, words=[user.name, sells_as], least=least_of(user))


def is_too_weak(user: User, password: str) -> bool:
    """Whether the password that they have shown would not be taken for what they may do now.

    Asked of admins, who became one with a password of a buyer's, or had it before there were rules.
    """
    if user.role is not Role.ADMIN:
        return False
    try:
        _check_password(user, password)
    except DomainError:
        return True
    return False


def least_of(user: User) -> int:
    """How long a new password of this member's has to be."""
    return passwords.MIN_LENGTH_ADMIN if user.role is Role.ADMIN else passwords.MIN_LENGTH


def is_demo(user: User) -> bool:
    """Whether this is an account of the demo's, which there is in development alone."""
    return config.get().development and user.email in DEMO_ADDRESSES


def _set_password(user: User, kept: str) -> None:
    # Of a password that somebody else may have chosen, before the address was confirmed, nobody need hear.
    had_one = bool(user.password_hash) and user.confirmed_at is not None
    user.password_hash = kept
    user.login_epoch += 1
    if user.role is not Role.BUYER:
        # A way into the pages of staff, and so a key to them.
        changes = [("password", audit.HIDDEN if had_one else None, audit.HIDDEN)]
        audit.note(AuditArea.KEY, Deed.CHANGED, "password", user.id, about_id=user.id, changes=changes)
    # Whoever knew the old password may have been here with it: no browser vouches for anybody any more.
    devices.forget(user)
    one_time_links.void(user, one_time_links.TO_CHOOSE_A_PASSWORD | one_time_links.TO_CONFIRM)
    if had_one:
        key = f"user:{user.id}:password_changed:{user.login_epoch}"
        forgotten = {"link": f"{config.get().public_url}/account/forgot"}
        outbox.stage("password_changed", key=key, to=user.email, user=user, context=forgotten)


def _mail_link(user: User, purpose: LinkPurpose, *, kind: str = "confirm_address") -> None:
    """Stage a mail with a new link, which may have to wait for its budget. The user is locked, or new."""
    link = one_time_links.make(user, purpose)
    key = f"user:{user.id}:link:{one_time_links.fingerprint(link)}"
    context = {"link": link}
    outbox.stage(kind, key=key, to=user.email, user=user, context=context, unproven=True)


def _commit() -> None:
    """Commit, and ask for the mails that were staged to leave now rather than with the next sweep."""
    db.session.commit()
    queue.soon("deliver_mail")


# --- Roles and admins -----------------------------------------------------------------------------------


def change_role(user_id: int, role: Role) -> None:
    """Give a person another role. The last admin stays one. Commits.

    A lesser one ends what the other gave: see endings.py.
    """
    _one_at_a_time()
    user = one_time_links.lock(user_id)
    if role is not Role.ADMIN:
        _refuse_last_admin(user)
    elif user.role is not Role.ADMIN:
        _tell_admins(user)
        _begin_anew(user)
    if endings.lowers(user.role, role):
        endings.of_power(user, role)
    elif role is not user.role:
        endings.of_keys(user, role)
    user.role = role
    _commit()


def _begin_anew(user: User) -> None:
    """Who becomes an admin logs in again, everywhere: then the password is weighed as an admin's, and the
    time for the second factor begins. No commit."""
    user.login_epoch += 1


def disable(user_id: int) -> None:
    """Close an account: it cannot log in, and what it opened ends. Nothing it bought is lost. Commits."""
    _one_at_a_time()
    user = one_time_links.lock(user_id)
    _refuse_last_admin(user)
    user.disabled_at = user.disabled_at or clock.now()
    endings.of_power(user)
    db.session.commit()


def enable(user_id: int) -> None:
    """Open a closed account again. Commits."""
    user = one_time_links.lock(user_id)
    if user.role is Role.ADMIN and user.disabled_at is not None:
        _tell_admins(user)
    user.disabled_at = None
    _commit()


def log_out(user_id: int) -> None:
    """End every login of a member's: they, and whoever else was in, log in again. Commits."""
    user = one_time_links.lock(user_id)
    endings.of_logins(user)
    audit.note(AuditArea.KEY, Deed.REMOVED, "every login", user_id, about_id=user_id)
    db.session.commit()


def _refuse_last_admin(user: User) -> None:
    others = _admins().where(User.id != user.id)
    if user.role is Role.ADMIN and db.session.scalar(others.limit(1)) is None:
        raise DomainError("last_admin", "This is the last admin. Make somebody else an admin first.")


def _admins() -> Select[int]:
    """The ids of the admins who can log in."""
    return select(User.id).where(
        User.role == Role.ADMIN, User.confirmed_at.is_not(None), User.disabled_at.is_(None)
    )


def _tell_admins(user: User) -> None:
    """Owe every other admin the news that this person becomes one. No commit."""
    actor = acting.who()
    by = db.session.get(User, actor.user_id) if actor.user_id is not None else None
    context = {
        "who": addresses.shown(user.email),
        "by": addresses.shown(by.email) if by is not None else "",
        "link": f"{config.get().public_url}/admin/audit",
    }
    others = select(User).where(User.id.in_(_admins()), User.id != user.id).order_by(User.id)
    for other in db.session.scalars(others):
        key = f"user:{other.id}:new_admin:{user.id}:{clock.now().timestamp():.6f}"
        outbox.stage("new_admin", key=key, to=other.email, user=other, context=context)


def has_admin() -> bool:
    """Whether some admin can log in."""
    return db.session.scalar(_admins().limit(1)) is not None


def ensure_first_admin() -> str | None:
    """In production, before any admin can log in: make ADMIN_EMAIL one, and give the link to print. Commits.

    Each web process calls this with its first request. The processes take turns by an advisory lock; the one
    that comes first gets a link, and the others None, as does everybody while that link still works.
    Raises DomainError `no_tables` when the database is not there or not migrated, to be asked again later.
    """
    settings = config.get()
    if settings.development or not settings.admin_email:
        return None
    try:
        _one_at_a_time()
        found = find(settings.admin_email)
        waiting = found is not None and one_time_links.waiting(found, LinkPurpose.FIRST_ADMIN)
        if not has_admin() and not waiting:
            return admin_link(settings.admin_email)
    except (OperationalError, ProgrammingError) as error:
        db.session.rollback()
        raise DomainError("no_tables", "The database has no tables yet: run `flask db upgrade`.") from error
    db.session.rollback()
    return None


def admin_link(email: str, *, resets: bool = False) -> str:
    """Make the person an admin, new or known, and give a link to choose a password with. Commits.

    `resets` takes their second factor away, which they have lost; every admin is told. Their logins end.
    """
    address = addresses.normal(email)
    made = _insert(address, "", "", Role.ADMIN, confirmed=False)
    user = made or find(address)
    if user is None:
        raise DomainError("account_gone", f"{address} was removed at this moment. Try again.")
    user = one_time_links.lock(user.id)
    if made is not None or user.role is not Role.ADMIN or user.disabled_at is not None:
        _tell_admins(user)
    if user.role is not Role.ADMIN:
        _begin_anew(user)
    user.role = Role.ADMIN
    user.disabled_at = None
    if resets and factors.lose(user):
        user.login_epoch += 1
    one_time_links.void(user, {LinkPurpose.FIRST_ADMIN})
    link = one_time_links.make(user, LinkPurpose.FIRST_ADMIN)
    # That somebody may choose a password for an admin's account is told, whoever was one before.
    audit.note(AuditArea.KEY, Deed.MADE, "admin's link", user.id, about_id=user.id)
    _commit()
    return link


def _one_at_a_time() -> None:
    """Take turns, until the end of the transaction, at deciding who is an admin."""
    db.session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADMINS_LOCK})


def claim_for(user: User) -> int:
    """Give a member the guest orders of their newly confirmed address; how many. No commit.

    A link that confirms may be of earlier times, when it went to another address than it goes to today: it
    proves nothing about that one's orders.
    """
    elsewhere = addresses.went_elsewhere(user.email)
    spelled = [user.email.lower()] if elsewhere else addresses.spellings(user.email)
    claimed = db.session.execute(
        update(Order)
        .where(func.lower(Order.email).in_(spelled), Order.user_id.is_(None))
        .values(user_id=user.id)
        .returning(Order.id)
        .execution_options(synchronize_session=False)
    )
    return len(claimed.all())
