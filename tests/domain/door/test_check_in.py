"""At the door: passes, every verdict, retries, undoing, and two doors at the same moment."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
import qrcode
from flask import Flask
from PIL import Image, ImageDraw, ImageFilter
from sqlalchemy import event as sa_event
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

import config
from domain import clock
from domain.door import check_in, qr_reader, staff
from domain.door.check_in import Scan
from domain.door.staff import Doorkeeper
from domain.errors import DomainError, NotFound
from domain.security import fronts
from domain.tickets import documents, issuing
from extensions import db
from models import CheckIn, DoorPass, Event, Order, Role, Ticket, Verdict
from tests.support.shop import make_event, make_user, place
from tests.support.threads import at_once

# As many as the test's connection pool allows to be inside a transaction at once.
SIDE_BY_SIDE = 4


def new_id() -> str:
    return str(uuid4())


@pytest.fixture
def order(app: Flask) -> Order:
    """Three free tickets of one order."""
    return place(make_event(price_minor=0), 3, email="ada.buyer@example.org")


@pytest.fixture
def keeper(order: Order) -> Doorkeeper:
    return keeper_of(order.event)


def keeper_of(event: Event | None, name: str = "Dora") -> Doorkeeper:
    assert event is not None
    return staff.doorkeeper(event, "pass:1", f"{name}, North door")


def qr(ticket: Ticket) -> str:
    return issuing.qr_text(ticket, ticket.order.code)


def check_ins() -> int:
    return db.session.scalars(select(func.count()).select_from(CheckIn)).one()


@pytest.fixture
def queries(app: Flask) -> Iterator[list[str]]:
    """Every statement that was sent since the list was last cleared."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa_event.listen(db.engine, "before_cursor_execute", note)
    yield sent
    sa_event.remove(db.engine, "before_cursor_execute", note)


# --- Passes ---------------------------------------------------------------------------------------------


def test_a_pass_is_a_link_and_a_pin_for_one_night(app: Flask) -> None:
    event = make_event()
    made, pin = staff.make_pass(event, "  North   door ", make_user(role=Role.ADMIN))
    assert len(pin) == 6 and pin.isdigit()
    assert pin not in made.pin_hash and made.pin_hash.startswith("$argon2id$")
    assert made.expires_at == event.ends_at + timedelta(hours=6)
    assert staff.url(made) == f"http://localhost/door/{made.token}/"
    keeper = staff.enter(made.token, f" {pin[:3]} {pin[3:]}", " Dora ")
    assert (keeper.event.id, keeper.key, keeper.by) == (event.id, f"pass:{made.id}", "Dora, North door")
    assert staff.by_pass(made, "").by == "North door"


def test_a_pass_ends_by_time_and_by_being_revoked(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    event = make_event()
    made, pin = staff.make_pass(event, "North", None)
    other, _ = staff.make_pass(make_event("other"), "Other", None)
    staff.revoke(event, other.id)
    assert staff.open_pass(other.token).id == other.id
    staff.revoke(event, made.id)
    with pytest.raises(NotFound, match="withdrawn"):
        staff.enter(made.token, pin, "Dora")
    real = clock.now()
    monkeypatch.setattr(clock, "now", lambda: real + timedelta(days=31))
    with pytest.raises(NotFound, match="until after the event"):
        staff.open_pass(other.token)
    with pytest.raises(NotFound, match="no door"):
        staff.open_pass("nothing")
    with pytest.raises(DomainError, match="over"):
        staff.make_pass(event, "Late", None)


def test_pins_cannot_be_guessed(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    config.use(replace(config.get(), limits=True))
    made, pin = staff.make_pass(make_event(), "North", None)
    wrong = f"{(int(pin) + 1) % 1_000_000:06d}"
    for _ in range(10):
        with pytest.raises(DomainError, match="not right"):
            staff.enter(made.token, wrong, "")
    with pytest.raises(DomainError, match="Too many wrong PINs"):
        staff.enter(made.token, pin, "")
    # Whoever found the link keeps nobody out who stands somewhere else.
    assert staff.enter(made.token, pin, "", client_address="192.0.2.7").by == "North"
    another, its_pin = staff.make_pass(make_event("other"), "North", None)
    assert staff.enter(another.token, its_pin, "").by == "North"
    # Nor behind a proxy that nobody told us of, where all are at one place.
    monkeypatch.setattr(fronts, "is_shared", lambda network: network == "10.0.0.1")
    for _ in range(10):
        with pytest.raises(DomainError, match="not right"):
            staff.enter(another.token, wrong if wrong != its_pin else pin, "", client_address="10.0.0.1")
    assert staff.enter(another.token, its_pin, "", client_address="10.0.0.1").by == "North"


@pytest.mark.parametrize(
    ("role", "own", "scan", "manage"),
    [
        (Role.ADMIN, False, True, True),
        (Role.DOOR, False, True, False),
        (Role.ORGANISER, True, True, True),
        (Role.ORGANISER, False, False, False),
        (Role.BUYER, False, False, False),
        (Role.BUYER, True, False, False),
    ],
)
def test_which_members_open_a_door(app: Flask, role: Role, own: bool, scan: bool, manage: bool) -> None:
    user = make_user(role=role)
    event = make_event(organiser_id=user.id if own else None)
    assert (staff.may_scan(user, event), staff.may_manage(user, event)) == (scan, manage)
    if scan:
        assert staff.by_user(user, event.slug).by == "Mel Member"
    else:
        with pytest.raises(DomainError) as refused:
            staff.by_user(user, event.slug)
        # Of another's event an organiser does not hear that there is one.
        assert refused.value.code == ("no_event" if role is Role.ORGANISER else "not_your_door")


# --- Verdicts -------------------------------------------------------------------------------------------


def test_a_valid_ticket_is_let_in_once(order: Order, keeper: Doorkeeper) -> None:
    first, second = order.tickets[0], keeper_of(order.event, "Sam")
    welcome = check_in.scan(keeper, new_id(), qr(first))
    assert (welcome.verdict, welcome.holder, welcome.type) == (Verdict.VALID, "Ada Buyer", "Standard")
    assert (welcome.count.admitted, welcome.count.total, welcome.rest) == (1, 3, 2)
    again = check_in.scan(second, new_id(), first.code.lower())
    assert again.verdict is Verdict.USED
    assert again.by == "Dora, North door" and again.at == welcome.at
    assert "Already let in at" in again.words and "Dora" in again.words
    assert (again.count.admitted, again.rest) == (1, 0)
    assert check_ins() == 2


@pytest.mark.parametrize("change", [lambda c: c, str.lower, lambda c: f" {c[:4]}-{c[4:]} "])
def test_the_short_code_is_as_good_however_it_is_typed(order: Order, keeper: Doorkeeper, change: Any) -> None:
    assert check_in.scan(keeper, new_id(), change(order.tickets[0].code)).verdict is Verdict.VALID


def test_a_ticket_of_another_event(order: Order, keeper: Doorkeeper) -> None:
    other = place(make_event("jazz", price_minor=0), 1)
    seen = check_in.scan(keeper, new_id(), qr(other.tickets[0]))
    assert seen.verdict is Verdict.WRONG_EVENT
    assert "Jazz" in seen.words
    assert (seen.holder, seen.type, seen.by) == ("", "", "")
    assert db.session.get_one(Ticket, other.tickets[0].id, populate_existing=True).checked_in_at is None


@pytest.mark.parametrize("forge", ["signature", "number", "event"])
def test_a_forged_code(order: Order, keeper: Doorkeeper, forge: str) -> None:
    genuine = qr(order.tickets[0])
    last = "A" if genuine[-1] != "A" else "B"
    forged = {
        "signature": genuine[:-1] + last,
        "number": genuine.replace("-1|", "-2|"),
        "event": genuine.replace(f"EVENT:{keeper.event.id}|", f"EVENT:{keeper.event.id + 1}|"),
    }[forge]
    seen = check_in.scan(keeper, new_id(), forged)
    assert (seen.verdict, seen.holder) == (Verdict.FORGED, "")
    assert seen.count.admitted == 0


def test_a_genuine_code_in_small_letters_and_with_a_mark_admits(order: Order, keeper: Doorkeeper) -> None:
    assert check_in.scan(keeper, new_id(), f"]Q1{qr(order.tickets[0]).lower()}").verdict is Verdict.VALID


@pytest.mark.parametrize("end", [10, 40, -16, -1])
def test_what_cannot_be_read_asks_for_the_short_code(order: Order, keeper: Doorkeeper, end: int) -> None:
    seen = check_in.scan(keeper, new_id(), qr(order.tickets[0])[:end])
    assert seen.verdict is Verdict.UNKNOWN and "Type the ticket's 8 letters and digits" in seen.words


@pytest.mark.parametrize("text", ["", "hello", "https://example.org/", "ACDEFGHJ", "\x00", "x" * 100_000])
def test_a_code_that_nobody_has(order: Order, keeper: Doorkeeper, text: str) -> None:
    assert check_in.scan(keeper, new_id(), text).verdict is Verdict.UNKNOWN


def test_void_and_suspended_tickets_say_why(order: Order, keeper: Doorkeeper) -> None:
    issuing.void(order.tickets[:1], "Refunded")
    issuing.suspend(order.tickets[1:2], "Disputed by the buyer's bank")
    db.session.commit()
    refunded = check_in.scan(keeper, new_id(), qr(order.tickets[0]))
    disputed = check_in.scan(keeper, new_id(), qr(order.tickets[1]))
    assert refunded.verdict is disputed.verdict is Verdict.VOID
    assert "Not valid any more: Refunded" in refunded.words
    assert "Suspended: Disputed by the buyer's bank" in disputed.words
    assert refunded.count.total == 2
    issuing.restore(order.tickets[1:2])
    db.session.commit()
    assert check_in.scan(keeper, new_id(), qr(order.tickets[1])).verdict is Verdict.VALID


def test_a_scan_costs_two_queries_however_many_tickets_there_are(app: Flask, queries: list[str]) -> None:
    counts = []
    for number in (1, 40):
        order = place(make_event(f"e{number}", capacity=50, limit=50, price_minor=0), number)
        keeper, text, code = keeper_of(order.event), qr(order.tickets[0]), order.tickets[0].code
        for said in (text, code, "nonsense"):
            check_in.scan(keeper, new_id(), "warm up")
            queries.clear()
            check_in.scan(keeper, new_id(), said)
            counts.append(len(queries))
    assert counts == [2] * 6


# --- Retries --------------------------------------------------------------------------------------------


def test_a_retry_repeats_its_verdict(order: Order, keeper: Doorkeeper) -> None:
    for text in (qr(order.tickets[0]), "nonsense"):
        scan_id = new_id()
        first = check_in.scan(keeper, scan_id, text)
        again = check_in.scan(keeper, scan_id, text)
        assert again == first
    assert check_ins() == 2


def test_a_retry_of_a_scan_that_found_it_used_stays_used(order: Order, keeper: Doorkeeper) -> None:
    text, scan_id = qr(order.tickets[0]), new_id()
    check_in.scan(keeper, new_id(), text)
    assert [check_in.scan(keeper, scan_id, text).verdict for _ in range(3)] == [Verdict.USED] * 3


def test_an_id_belongs_to_one_ticket_and_one_event(order: Order, keeper: Doorkeeper) -> None:
    scan_id = new_id()
    check_in.scan(keeper, scan_id, qr(order.tickets[0]))
    with pytest.raises(DomainError, match="used for another ticket"):
        check_in.scan(keeper, scan_id, qr(order.tickets[1]))
    with pytest.raises(DomainError, match="used for another ticket"):
        check_in.scan(keeper_of(make_event("other")), scan_id, qr(order.tickets[0]))
    assert check_ins() == 1


@pytest.mark.parametrize(
    "scan_id", ["", "short", "x" * 41, "with space", "per%cent", "semi;colon", "ünïcode1"]
)
def test_a_malformed_id_is_refused(order: Order, keeper: Doorkeeper, scan_id: str) -> None:
    with pytest.raises(DomainError, match="no proper id"):
        check_in.scan(keeper, scan_id, qr(order.tickets[0]))


# --- A group, and undoing -------------------------------------------------------------------------------


def test_the_rest_of_an_order_is_let_in_at_once(order: Order, keeper: Doorkeeper) -> None:
    issuing.void(order.tickets[2:], "Refunded")
    db.session.commit()
    first, group = new_id(), new_id()
    assert check_in.scan(keeper, first, qr(order.tickets[0])).rest == 1
    assert [check_in.admit_rest(keeper, first, group) for _ in range(2)] == [1, 1]
    assert check_in.scan(keeper, new_id(), qr(order.tickets[1])).verdict is Verdict.USED
    assert check_in.count(keeper.event) == check_in.Count(2, 2)
    assert check_in.undo(keeper, group) == 1
    assert check_in.admit_rest(keeper, first, new_id()) == 1


def test_a_group_needs_a_ticket_that_this_doorkeeper_let_in(order: Order, keeper: Doorkeeper) -> None:
    first = new_id()
    assert check_in.admit_rest(keeper, first, new_id()) == 0
    check_in.scan(keeper, first, qr(order.tickets[0]))
    assert check_in.admit_rest(replace(keeper, key="pass:2"), first, new_id()) == 0
    assert check_in.admit_rest(keeper_of(make_event("other")), first, new_id()) == 0
    check_in.undo(keeper, first)
    assert check_in.admit_rest(keeper, first, new_id()) == 0


def test_an_undone_ticket_can_be_scanned_again(order: Order, keeper: Doorkeeper) -> None:
    text, scan_id = qr(order.tickets[0]), new_id()
    check_in.scan(keeper, scan_id, text)
    assert check_in.undo(keeper, scan_id) == 1
    with pytest.raises(DomainError, match="undone"):
        check_in.scan(keeper, scan_id, text)
    with pytest.raises(DomainError, match="can be undone, once"):
        check_in.undo(keeper, scan_id)
    again = check_in.scan(keeper, new_id(), text)
    assert (again.verdict, again.count.admitted) == (Verdict.VALID, 1)
    kept = db.session.scalars(select(CheckIn).filter_by(scan_id=scan_id)).one()
    assert kept.undone_by == "Dora, North door" and kept.undone_at is not None


def test_only_ones_own_recent_admissions_are_undone(
    order: Order, keeper: Doorkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_id, used = new_id(), new_id()
    check_in.scan(keeper, scan_id, qr(order.tickets[0]))
    check_in.scan(keeper, used, qr(order.tickets[0]))
    others = [
        replace(keeper, by="Sam, North door"),
        replace(keeper, key="pass:2"),
        keeper_of(make_event("other")),
    ]
    for other in others:
        with pytest.raises(DomainError):
            check_in.undo(other, scan_id)
    for never in (used, "", "%", scan_id[:-1]):
        with pytest.raises(DomainError):
            check_in.undo(keeper, never)
    real = clock.now()
    monkeypatch.setattr(clock, "now", lambda: real + check_in.UNDO_WITHIN)
    with pytest.raises(DomainError):
        check_in.undo(keeper, scan_id)
    assert check_in.count(keeper.event).admitted == 1


# --- Looking up -----------------------------------------------------------------------------------------


def test_people_are_found_by_name_address_order_and_code(order: Order, keeper: Doorkeeper) -> None:
    place(keeper.event, 1, name="Zoe Quist", email="zoe@example.net")
    for words in ("ada", "ADA buyer", "ada.buyer@example.org", order.code, order.tickets[0].code.lower()):
        found = check_in.search(keeper.event, words)
        assert {guest.holder for guest in found} == {"Ada Buyer"}, words
    assert [guest.email for guest in check_in.search(keeper.event, "quist")] == ["z•••@example.net"]
    for words in ("", " ", "a", "%", "__", "nobody", "ada quist"):
        assert check_in.search(keeper.event, words) == [], words
    assert check_in.search(make_event("other"), "ada") == []


def test_the_list_for_paper_has_everybody_by_name_in_two_queries(
    order: Order, keeper: Doorkeeper, queries: list[str]
) -> None:
    place(keeper.event, 2, name="aaron able", email="a@example.org")
    issuing.void(order.tickets[:1], "Refunded")
    check_in.scan(keeper, new_id(), qr(order.tickets[1]))
    db.session.commit()
    assert keeper.event.id
    queries.clear()
    listed = list(check_in.door_list(keeper.event))
    assert len(queries) == 2
    assert [guest.holder for guest in listed] == ["aaron able"] * 2 + ["Ada Buyer"] * 2
    assert [guest.checked_in_at is not None for guest in listed] == [False, False, True, False]


def test_recent_scans_are_ones_own_newest_first(order: Order, keeper: Doorkeeper) -> None:
    for ticket in order.tickets:
        check_in.scan(keeper, new_id(), qr(ticket))
    check_in.scan(keeper_of(order.event, "Sam"), new_id(), "nonsense")
    assert [entry.verdict for entry in check_in.recent(keeper)] == [Verdict.VALID] * 3
    assert len(check_in.recent(keeper, 2)) == 2


# --- At the same moment ---------------------------------------------------------------------------------


def verdicts(results: list[Scan | BaseException]) -> list[Verdict | BaseException]:
    return [r.verdict if isinstance(r, Scan) else r for r in results]


def test_one_scan_wins_when_many_doors_scan_one_ticket_at_once(order: Order, app: Flask) -> None:
    event_id, text = order.event_id, qr(order.tickets[0])

    def one(number: int) -> Scan:
        event = db.session.get_one(Event, event_id)
        return check_in.scan(keeper_of(event, f"Door{number}"), new_id(), text)

    results = at_once(app, 20, one)
    assert sorted(map(str, verdicts(results))) == ["used"] * 19 + ["valid"]
    winner = next(r for r in results if isinstance(r, Scan) and r.verdict is Verdict.VALID)
    assert {r.by for r in results if isinstance(r, Scan)} == {winner.by}
    assert check_ins() == 20


def test_one_wins_when_all_have_seen_it_free(
    order: Order, app: Flask, monkeypatch: pytest.MonkeyPatch, queries: list[str]
) -> None:
    """The forced interleaving: every door has judged the ticket valid before any writes."""
    event_id, text = order.event_id, qr(order.tickets[0])
    together, real = Barrier(SIDE_BY_SIDE), check_in._write

    def together_first(keeper: Doorkeeper, result: Scan, *rest: Any) -> bool:
        if result.verdict is Verdict.VALID:
            together.wait(10)
        return real(keeper, result, *rest)

    monkeypatch.setattr(check_in, "_write", together_first)
    queries.clear()
    results = at_once(
        app,
        SIDE_BY_SIDE,
        lambda n: check_in.scan(keeper_of(db.session.get_one(Event, event_id)), new_id(), text),
    )
    assert sorted(map(str, verdicts(results))) == ["used"] * (SIDE_BY_SIDE - 1) + ["valid"]
    # Each read its event; the winner needed two queries more, each loser four.
    assert len(queries) == SIDE_BY_SIDE + 2 + 4 * (SIDE_BY_SIDE - 1)


def test_reading_before_writing_would_let_two_in(
    order: Order, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: an admission without its condition is stopped by the unique index alone."""
    event_id, text = order.event_id, qr(order.tickets[0])
    together = Barrier(SIDE_BY_SIDE)

    def read_then_write(row: dict[str, Any]) -> bool:
        together.wait(10)
        mark = update(Ticket).where(Ticket.id == row["ticket_id"])
        db.session.execute(mark.values(checked_in_at=row["at"], checked_in_by=row["by"]))
        db.session.add(CheckIn(**row))
        db.session.flush()
        return True

    def all_at_once() -> list[Verdict | BaseException]:
        return verdicts(
            at_once(
                app,
                SIDE_BY_SIDE,
                lambda n: check_in.scan(keeper_of(db.session.get_one(Event, event_id)), new_id(), text),
            )
        )

    monkeypatch.setattr(check_in, "_admit", read_then_write)
    results = all_at_once()
    assert results.count(Verdict.VALID) == 1
    assert sum(isinstance(r, IntegrityError) for r in results) == SIDE_BY_SIDE - 1
    # And without that index, nothing would stop it.
    db.session.execute(db.text("DELETE FROM check_ins"))
    db.session.execute(update(Ticket).values(checked_in_at=None))
    db.session.execute(db.text("DROP INDEX check_ins_one_admission"))
    db.session.commit()
    try:
        together.reset()
        assert all_at_once() == [Verdict.VALID] * SIDE_BY_SIDE
    finally:
        db.session.execute(db.text("DELETE FROM check_ins"))
        indexes = {str(index.name): index for index in CheckIn.metadata.tables["check_ins"].indexes}
        indexes["check_ins_one_admission"].create(db.session.connection())
        db.session.commit()


def test_a_retry_that_overtakes_its_scan_gets_the_same_verdict(order: Order, app: Flask) -> None:
    event_id, text, scan_id = order.event_id, qr(order.tickets[0]), new_id()
    results = at_once(
        app,
        SIDE_BY_SIDE,
        lambda n: check_in.scan(keeper_of(db.session.get_one(Event, event_id)), scan_id, text),
    )
    assert verdicts(results) == [Verdict.VALID] * SIDE_BY_SIDE
    assert check_ins() == 1


def test_a_group_and_its_tickets_at_the_same_moment(order: Order, keeper: Doorkeeper, app: Flask) -> None:
    """Whoever is first, each ticket is let in once, and none is forgotten."""
    event_id, texts, first = order.event_id, [qr(ticket) for ticket in order.tickets], new_id()
    check_in.scan(keeper, first, texts[0])

    def work(number: int) -> object:
        mine = keeper_of(db.session.get_one(Event, event_id))
        if number % 2:
            return check_in.admit_rest(mine, first, new_id())
        return check_in.scan(mine, new_id(), texts[1 + number // 2 % 2])

    results = at_once(app, SIDE_BY_SIDE, work)
    assert [r for r in results if isinstance(r, Exception)] == []
    admissions = select(func.count()).select_from(CheckIn).filter_by(verdict=Verdict.VALID)
    assert db.session.scalars(admissions).one() == 3
    assert check_in.count(db.session.get_one(Event, event_id)).admitted == 3


def test_voided_while_it_is_scanned(
    order: Order, keeper: Doorkeeper, monkeypatch: pytest.MonkeyPatch, app: Flask
) -> None:
    """A refund between the look and the admission wins: nobody is let in on a ticket that is void."""
    real, ticket_id = check_in._admit, order.tickets[0].id

    def refunded_first(*args: Any) -> bool:
        monkeypatch.setattr(check_in, "_admit", real)
        with app.app_context():
            issuing.void([db.session.get_one(Ticket, ticket_id)], "Refunded")
            db.session.commit()
        return real(*args)

    monkeypatch.setattr(check_in, "_admit", refunded_first)
    assert check_in.scan(keeper, new_id(), qr(order.tickets[0])).verdict is Verdict.VOID


# --- Frames ---------------------------------------------------------------------------------------------


def photo(text: str, seed: int = 1) -> Image.Image:
    """A code as a phone sees it on another phone: askew, unevenly lit, a little out of focus, with noise."""
    chance = random.Random(seed)
    code = Image.open(io.BytesIO(documents.qr_png(text, scale=6))).convert("RGB")
    scene = Image.new("RGB", (1280, 960), (58, 52, 60))
    draw = ImageDraw.Draw(scene)
    for _ in range(300):
        x, y = chance.randrange(1280), chance.randrange(960)
        wide, high, shade = chance.randrange(60), chance.randrange(60), chance.randrange(30, 200)
        draw.ellipse([x, y, x + wide, y + high], fill=(shade, shade // 2, 90))
    smooth = Image.Resampling.BICUBIC
    turned = code.rotate(chance.uniform(-25, 25), smooth, expand=True, fillcolor="white")
    scene.paste(turned, (chance.randrange(200, 500), chance.randrange(100, 250)))
    tilt = (1, 0.08, 0, 0.05, 1.02, 0, 0.00008, 0.00012)
    scene = scene.transform(scene.size, Image.Transform.PERSPECTIVE, tilt, smooth)
    light = Image.linear_gradient("L").resize(scene.size).point(lambda v: 120 + v // 2)
    scene = Image.composite(scene, Image.new("RGB", scene.size, (20, 20, 24)), light)
    noise = Image.effect_noise(scene.size, 40).convert("RGB")
    return Image.blend(scene.filter(ImageFilter.GaussianBlur(1.2)), noise, 0.12)


def jpeg(picture: Image.Image, quality: int = 60) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.mark.parametrize("seed", range(5))
def test_a_ticket_is_read_from_a_photograph(order: Order, keeper: Doorkeeper, seed: int) -> None:
    text = qr(order.tickets[0])
    frame = jpeg(photo(text, seed))
    assert len(frame) < qr_reader.MAX_BYTES
    assert qr_reader.read(frame) == text
    assert check_in.scan(keeper, new_id(), qr_reader.read(frame) or "").verdict is Verdict.VALID


def test_a_frame_without_a_code_reads_as_nothing() -> None:
    assert qr_reader.read(jpeg(Image.effect_noise((640, 480), 60))) is None


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff" + b"\x00" * 1000])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(DomainError, match="not a JPEG"):
        qr_reader.read(data)


def test_frames_are_bounded() -> None:
    with pytest.raises(DomainError, match="at most 300 KB"):
        qr_reader.read(b"\xff" * (qr_reader.MAX_BYTES + 1))
    with pytest.raises(DomainError, match="too many pixels"):
        qr_reader.read(jpeg(Image.new("L", (4000, 2000))))
    gif = io.BytesIO()
    Image.new("L", (10, 10)).save(gif, "GIF")
    with pytest.raises(DomainError, match="not a JPEG, PNG or WebP"):
        qr_reader.read(gif.getvalue())
    with pytest.raises(DomainError, match="not a JPEG"):
        qr_reader.read(jpeg(Image.effect_noise((640, 480), 60))[:20])


def test_passes_keep_no_pin(app: Flask) -> None:
    made, pin = staff.make_pass(make_event(), "North", None)
    row = db.session.get_one(DoorPass, made.id)
    assert pin not in str({column.name: getattr(row, column.name) for column in DoorPass.__table__.columns})


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_frame_in_another_format_of_the_web_is_read_too(kind: str) -> None:
    out = io.BytesIO()
    qrcode.make("a ticket").get_image().convert("RGBA").save(out, kind)
    assert qr_reader.read(out.getvalue()) == "a ticket"
