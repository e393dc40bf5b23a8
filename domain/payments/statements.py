"""A bank's statement as a CSV file: its lines, and which payment each of them is about.

Banks export what they like: other headers, separators, encodings, a preamble above and sums below. So columns
are found by their names, and what cannot be read for certain is left to a person. Nothing here writes: what a
person has seen and ticked is told as by hand, one line after the other (`tell`).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import or_, select
from sqlalchemy.orm import contains_eager, joinedload

from domain import clock, money
from domain.errors import DomainError
from domain.payments import incidents, telling, told_reports
from domain.providers import registry
from domain.providers.contract import Confirmed
from extensions import db
from models import Awaits, Order, Payment, PaymentState, ToldReport

MOST_BYTES = 512 * 1024
MOST_LINES = 2000
# So many lines are confirmed in one go: a form has no more fields.
MOST_AT_ONCE = 300
_MOST_COLUMNS = 60
_MOST_CELL = 2000
_HEADER_WITHIN = 40
# The bank's clock, where its times name no zone.
_ALMATY = timezone(timedelta(hours=5))

# What headers are called, the surest words first. All in lower case.
_REFERENCES = (
    *("номер документа", "№ документа", "номер операции", "№ операции", "номер транзакции", "id операции"),
    *("id транзакции", "референс", "номер квитанции", "номер чека", "document number", "transaction id"),
    *("reference", "transaction", "receipt", "document", "operation id"),
)
_AMOUNTS = (
    *("кредит", "приход", "поступление", "зачислено", "credit", "paid in"),
    *("сумма операции", "сумма платежа", "сумма", "amount", "sum"),
)
_CURRENCIES = ("валюта операции", "валюта платежа", "валюта", "currency")
_DATES = ("дата операции", "дата платежа", "дата и время", "дата", "date and time", "date", "time")
_OURS = re.compile(r"(ORD-[2-9A-HJKMNP-Z]{8})(-[0-9]{1,3}(?:-E[0-9]{1,3})?)?", re.IGNORECASE)
_CURRENCY = re.compile(r"(₸|kzt|тг\.?|тенге)", re.IGNORECASE)
# What a column for it says where a line is in tenge; 398 is its number.
_TENGE = re.compile(r"|₸|kzt|398|тг\.?|тенге|.*тенге", re.IGNORECASE)
_BLANKS = re.compile(r"[\s\u00a0\u202f\u2009']+")
_NUMBER = re.compile(r"[+-]?[0-9]{1,12}([.,][0-9]{1,2})?")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+\.[0-9]{2}")
_FORMATS = ("%d.%m.%Y", "%Y-%m-%d", "%d/%m/%Y", "%d-%m-%Y", "%d.%m.%y")
_TIMES = ("", " %H:%M", " %H:%M:%S")
# The first sign of a cell by which a spreadsheet takes it for a formula; numbers may have a sign.
_FORMULA = re.compile(r"\s*(=|@|[+-](?![-0-9\s(]|$))")


@dataclass(frozen=True)
class Line:
    """One line of a statement. The sum is in tiyn; None where it cannot be read, or is `foreign` money."""

    number: int
    reference: str
    amount_minor: int | None
    paid_at: datetime | None
    text: str
    foreign: str = ""


@dataclass(frozen=True)
class Columns:
    """Which columns are which; None where a statement has none for it."""

    reference: int
    amount: int
    date: int | None
    currency: int | None


class Found(StrEnum):
    MATCHED = "matched"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"
    USED = "used"


@dataclass(frozen=True)
class Match:
    """What a line is about. `why` says what is in the way; `token` is what a form sends back for it."""

    line: Line
    found: Found
    payment: Payment | None = None
    why: str = ""
    token: str = ""
    amount: str = ""


@dataclass(frozen=True)
class Preview:
    """A statement, line by line, and the payments that wait for money which is not in it."""

    matches: list[Match]
    missing: list[Payment]

    def of(self, found: str) -> list[Match]:
        """The lines of one kind."""
        return [match for match in self.matches if match.found == found]


# --- Reading a file -------------------------------------------------------------------------------------


def read(data: bytes) -> list[Line]:
    """The lines of a statement by which money came. DomainError in words where it is none, or is hostile."""
    rows = _rows(_text(data))
    header, columns = _header(rows)
    lines = []
    for number, row in enumerate(rows[header + 1 :], start=header + 2):
        line = _line(number, row, columns)
        if line is not None:
            lines.append(line)
    if not lines:
        raise _refused("There is no line in it by which money came.")
    return lines


def _refused(why: str) -> DomainError:
    return DomainError("statement", f"This statement cannot be read. {why}")


def _text(data: bytes) -> str:
    if not data.strip():
        raise _refused("The file is empty. Choose the file that the bank exported.")
    if len(data) > MOST_BYTES:
        raise _refused(f"It has more than {MOST_BYTES // 1024} KB: export fewer days at once.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in data:
        raise _refused("It is no text. Export it as CSV, and not as Excel or PDF.")
    else:
        encodings = ["utf-8-sig", "cp1251"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise _refused("Its letters are written in a way that is not known here. Export it as UTF-8.")


def _rows(text: str) -> list[list[str]]:
    head = "\n".join(text.splitlines()[:_HEADER_WITHIN])
    separator = max(";\t,", key=head.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise _refused(f"It is no CSV ({error}).") from error
    if len(rows) > MOST_LINES:
        raise _refused(f"It has more than {MOST_LINES} lines: export fewer days at once.")
    for number, row in enumerate(rows, start=1):
        _check(number, row)
    return rows


def _check(number: int, row: Sequence[str]) -> None:
    """What no bank writes: whoever opens such a cell in a spreadsheet runs it."""
    if len(row) > _MOST_COLUMNS or any(len(cell) > _MOST_CELL for cell in row):
        raise _refused(f"Line {number} has more in it than a statement's line has.")
    formula = next((cell for cell in row if _FORMULA.match(cell)), None)
    if formula is not None:
        raise _refused(
            f"Line {number} has a formula in it ({formula.strip()[:20]!r}), which no bank writes. Export the "
            "file again, and send it as it comes."
        )


def _header(rows: Sequence[Sequence[str]]) -> tuple[int, Columns]:
    """Which row names the columns, and which is which."""
    for number, row in enumerate(rows[:_HEADER_WITHIN]):
        named = [" ".join(cell.replace("\u00a0", " ").casefold().split()) for cell in row]
        reference, amount = _column(named, _REFERENCES), _column(named, _AMOUNTS)
        if reference is not None and amount is not None and reference != amount:
            return number, Columns(
                reference, amount, _column(named, _DATES), _column(named, _CURRENCIES, amount)
            )
    raise _refused(
        "No line names its columns: there must be one for the bank's reference (such as “Номер документа”) "
        "and one for the sum (such as “Кредит” or “Сумма”)."
    )


def _column(named: Sequence[str], words: Iterable[str], taken: int = -1) -> int | None:
    """The column that is called so, else one with that in its name; not the one that is something else."""
    named = ["" if place == taken else name for place, name in enumerate(named)]
    for word in words:
        exact = next((place for place, name in enumerate(named) if name == word), None)
        if exact is not None:
            return exact
    for word in words:
        within = next((place for place, name in enumerate(named) if word in name), None)
        if within is not None:
            return within
    return None


def _line(number: int, row: Sequence[str], columns: Columns) -> Line | None:
    """A line by which money came; None for what went out, for sums below, and for empty lines."""
    cell, name, when, currency = (
        " ".join(row[place].split()) if place is not None and place < len(row) else ""
        for place in (columns.amount, columns.reference, columns.date, columns.currency)
    )
    text = " ".join(" ".join(row).split())
    if not cell or not (name or _OURS.search(text)):
        return None
    minor = amount_of(cell)
    if minor is not None and minor <= 0:
        return None
    if not _TENGE.fullmatch(currency):
        return Line(number, name, None, _moment(when), text, currency[:20])
    return Line(number, name, minor, _moment(when), text)


def amount_of(cell: str) -> int | None:
    """`1 500,00`, `1,500.00` or `1500` in minor units; None where it may be read in two ways."""
    bare = _BLANKS.sub("", _CURRENCY.sub("", cell)).replace("−", "-")
    if _GROUPED.fullmatch(bare):
        bare = bare.replace(",", "")
    if not _NUMBER.fullmatch(bare):
        return None
    return int(Decimal(bare.replace(",", ".")).scaleb(2))


def _moment(cell: str) -> datetime | None:
    told = " ".join(cell.replace("T", " ").split())[:19]
    for form in _FORMATS:
        for time in _TIMES:
            try:
                return datetime.strptime(told, form + time).replace(tzinfo=_ALMATY)
            except ValueError:
                continue
    return None


# --- What each line is about ----------------------------------------------------------------------------


def preview(data: bytes, *, actor_id: int) -> Preview:
    """What confirming a statement would do. Reads only; DomainError where the file cannot be read."""
    lines = read(data)
    looked_up, seen = _look_up(lines), set[tuple[str, str]]()
    matches = [_match(line, looked_up, seen, actor_id) for line in lines]
    newest = max((line.paid_at for line in lines if line.paid_at is not None), default=None)
    found = {match.payment.id for match in matches if match.payment is not None}
    return Preview(matches, _missing(newest, found))


def _providers() -> list[str]:
    """Those whose payments people confirm."""
    adapters = (registry.get(name) for name in registry.names())
    return [own.name for own in adapters if not own.can.ask and isinstance(own, Confirmed)]


@dataclass(frozen=True)
class _LookedUp:
    """What is known of all that a statement's lines name."""

    # By the order's code, the newest attempt first.
    payments: Mapping[str, Sequence[Payment]]
    # By the provider, and the bank's reference as it is kept.
    told: Mapping[tuple[str, str], ToldReport]


def _look_up(lines: Sequence[Line]) -> _LookedUp:
    """Two questions, however many lines there are."""
    codes = {code.upper() for line in lines for code, _ in _OURS.findall(line.text)}
    query = (
        select(Payment)
        .join(Order, Order.id == Payment.order_id)
        .where(Payment.provider.in_(_providers()), Order.code.in_(codes))
        .options(contains_eager(Payment.order))
        .order_by(Payment.attempt.desc())
    )
    payments: dict[str, list[Payment]] = {}
    for payment in db.session.scalars(query):
        payments.setdefault(payment.order.code, []).append(payment)
    rows = told_reports.by_references({_normal(line.reference)[0] for line in lines} - {""})
    return _LookedUp(payments, {(row.provider, row.reference): row for row in rows})


def _match(line: Line, looked_up: _LookedUp, seen: set[tuple[str, str]], actor_id: int) -> Match:
    shown = money.show(line.amount_minor, "KZT") if line.amount_minor is not None else ""
    candidates = _candidates(line, looked_up)
    reference, provider = _normal(line.reference)
    known = looked_up.told.get((provider, reference)) if reference else None
    if known is not None:
        return _known(line, known, actor_id, shown)
    if not candidates:
        why = "No order's code stands in it, and its reference is not known here."
        return Match(line, Found.UNKNOWN, None, why, amount=shown)
    payment = candidates[0] if len(candidates) == 1 else None
    why = _in_the_way(line, reference, candidates)
    if not why and (provider, reference) in seen:
        return Match(line, Found.USED, payment, "The same reference stands in an earlier line.", amount=shown)
    if why or payment is None:
        return Match(line, Found.AMBIGUOUS, payment, why, amount=shown)
    seen.add((provider, reference))
    return Match(line, Found.MATCHED, payment, "", _token(line, f"p{payment.id}", reference), shown)


def _in_the_way(line: Line, reference: str, candidates: Sequence[Payment]) -> str:
    """Why a person has to look at a line that names an order of ours; "" where it is plain."""
    if len(candidates) > 1:
        return f"It may be about {' or '.join(p.reference for p in candidates)}."
    payment = candidates[0]
    if line.foreign:
        return f"It is in {line.foreign}, and not in tenge."
    if line.amount_minor is None:
        return "Its sum may be read in two ways."
    if not reference:
        return "It has no reference of the bank."
    if payment.state is PaymentState.PAID:
        return f"{payment.reference} is paid already."
    if line.amount_minor != payment.amount_minor:
        return f"{payment.reference} is to be {money.show(payment.amount_minor, payment.currency)}."
    return ""


def _known(line: Line, row: ToldReport, actor_id: int, shown: str) -> Match:
    """A line whose reference was told before: it confirms what waits for it, and is used otherwise."""
    payment = row.payment
    if not row.is_waiting:
        return Match(line, Found.USED, payment, f"It was confirmed for {payment.reference}.", amount=shown)
    if line.amount_minor != row.amount_minor:
        why = f"{money.show(row.amount_minor, row.currency)} was told for {payment.reference}."
        return Match(line, Found.AMBIGUOUS, payment, why, amount=shown)
    if row.awaits is Awaits.PERSON and row.by_id == actor_id:
        why = f"You wrote it down for {payment.reference}: somebody else has to confirm it."
        return Match(line, Found.USED, payment, why, amount=shown)
    return Match(line, Found.MATCHED, payment, "", _token(line, f"t{row.id}", row.reference), shown)


def _normal(typed: str) -> tuple[str, str]:
    """The bank's reference as it is kept, and whose payments it may be for; "" where it is none."""
    for name in _providers():
        provider = registry.get(name)
        found = provider.bank_reference(typed) if isinstance(provider, Confirmed) else ""
        if found:
            return found, name
    return "", ""


def _candidates(line: Line, looked_up: _LookedUp) -> list[Payment]:
    """The payments whose codes stand in a line: the attempt that is named, else the order's newest."""
    named = {code.upper(): attempt for code, attempt in _OURS.findall(line.text)}
    found = []
    for code, attempt in sorted(named.items()):
        own = looked_up.payments.get(code, ())
        wanted = next((payment for payment in own if payment.reference == f"{code}{attempt.upper()}"), None)
        found += [wanted or own[0]] if own else []
    return found


def _missing(newest: datetime | None, found: set[int]) -> list[Payment]:
    """Payments that were to be paid before the statement's last day, and of which nothing stands in it."""
    if newest is None:
        return []
    query = (
        select(Payment)
        .where(
            Payment.provider.in_(_providers()),
            or_(Payment.state == PaymentState.OPEN, Payment.state == PaymentState.REVIEW),
            Payment.closes_at < min(newest, clock.now()),
            Payment.id.not_in(found),
        )
        .options(joinedload(Payment.order))
        .order_by(Payment.id)
        .limit(MOST_AT_ONCE)
    )
    waiting = db.session.scalars(query).all()
    return [p for p in waiting if p.state is PaymentState.OPEN or incidents.waits_for_word(p)]


# --- Telling what a person has ticked -------------------------------------------------------------------


def _token(line: Line, what: str, reference: str) -> str:
    """What was shown: whose line it is, the money's name, its sum, and when it came."""
    at = line.paid_at.isoformat() if line.paid_at is not None else ""
    return "|".join((str(line.number), what, reference, str(line.amount_minor), at))


@dataclass(frozen=True)
class Told:
    """How many lines were confirmed, and what was said of the others, in words."""

    confirmed: int
    refused: list[str]


def tell(tokens: Sequence[str], unpaid: Sequence[int], *, actor_id: int) -> Told:
    """Confirm the lines that a person has ticked, and end payments of which nothing came. Commits each."""
    if len(tokens) + len(unpaid) > MOST_AT_ONCE:
        raise DomainError("too_many", f"Confirm at most {MOST_AT_ONCE} lines at once.")
    done, refused = 0, []
    for token in tokens:
        number = token.partition("|")[0][:6]
        try:
            _tell_line(token, actor_id)
            done += 1
        except DomainError as error:
            refused.append(f"Line {number}: {error.message}")
    for payment_id in unpaid:
        try:
            telling.tell_unpaid(payment_id, actor_id=actor_id, note="It is not in the bank's statement.")
            done += 1
        except DomainError as error:
            refused.append(error.message)
    return Told(done, refused)


def _tell_line(token: str, actor_id: int) -> None:
    parts = token.split("|")
    numbers = (parts[1][1:], parts[3]) if len(parts) == 5 and len(token) <= 200 else ("",)
    if not all(one.isascii() and one.isdigit() for one in numbers):
        raise DomainError("unreadable", "This line could not be read. Upload the statement once more.")
    number, what, reference, minor, at = parts
    note = f"By the bank's statement, line {number[:6]}."
    if what.startswith("t"):
        telling.confirm(int(what[1:19]), actor_id=actor_id, note=note)
        return
    try:
        paid_at = datetime.fromisoformat(at) if at else None
    except ValueError as error:
        raise DomainError("unreadable", "This line could not be read. Upload it once more.") from error
    if paid_at is not None and paid_at.tzinfo is None:
        paid_at = paid_at.replace(tzinfo=_ALMATY)
    telling.tell_paid(
        int(what[1:19]),
        reference=reference,
        amount_minor=int(minor[:12]),
        actor_id=actor_id,
        note=note,
        paid_at=paid_at,
    )
