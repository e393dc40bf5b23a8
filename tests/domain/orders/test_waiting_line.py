"""The waiting line: places, turns, how long what was ordered is kept, and who is never refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

import config
from domain import clock
from domain.errors import DomainError
from domain.orders import line_turns, managing, waiting_line
from domain.payments import starting
from domain.post import outbox
from domain.sweep import sweeping
from extensions import db
from models import Event, LineMode, LinePlace, Order, OrderState, Payment, PaymentState, StockState
from tests.support.people import log_in, mailed_link, mails, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place
from tests.support.threads import at_once
from tests.support.web import newest_order

HERE, THERE = "203.0.113.7", "198.51.100.4"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def move(**how_much: float) -> None:
        moment = clock.now() + timedelta(**how_much)
        monkeypatch.setattr(clock, "now", lambda: moment)

    return move


def lined(capacity: int = 9) -> Event:
    return make_event("rush", capacity=capacity, line=LineMode.ON)


def confirmed(event: Event, email: str, where: str = HERE) -> LinePlace:
    """A place that waits."""
    waiting_line.ask(event, email, user=None, client_address=where)
    found = db.session.scalars(
        select(LinePlace).where(LinePlace.email == email, LinePlace.ended_at.is_(None))
    )
    return waiting_line.confirm(event, found.one().secret, client_address=where)


def look(event: Event, own: LinePlace) -> waiting_line.View:
    """What the place's page shows, some seconds after it was last looked at."""
    event.line_moved_at = None
    db.session.commit()
    return waiting_line.look(event, own.secret)


def order(event: Event, own: LinePlace, quantity: int = 1, where: str = HERE) -> Order:
    look(event, own)
    return place(event, quantity, email=own.email, turn=own.secret, client_address=where)


def test_from_the_event_s_page_to_the_tickets_without_a_script(
    client: FlaskClient, sandbox: Sandbox, later: Callable[..., None]
) -> None:
    event = lined()
    page = client.get("/events/rush")
    assert "Take a place in the line" in page.text and 'id="buy"' not in page.text
    # Whoever sends the form of before the line was on is not refused: the page says what to do.
    asked = post(
        client,
        "/events/rush",
        name="Ada",
        email="ada@example.org",
        **{f"quantity-{event.ticket_types[0].id}": "1"},
    )
    assert asked.status_code == 409 and "There is a waiting line now" in asked.text
    for _ in range(2):
        assert (
            post(client, "/events/rush/line", page="/events/rush", email="ADA@example.org").status_code == 303
        )
    assert db.session.query(LinePlace).count() == 1
    link = mailed_link("line_place")
    # A scanner that opens the link takes nothing.
    assert "Take my place" in client.get(link).text
    assert post(client, link).status_code == 303
    page = client.get(link)
    assert "It is your turn" in page.text and 'value="ada@example.org"' in page.text
    hidden = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
    made = client.post(
        "/events/rush",
        data={
            **hidden,
            "name": "Ada",
            "email": "ada@example.org",
            f"quantity-{event.ticket_types[0].id}": "2",
        },
    )
    order = newest_order()
    assert made.location == order.path and order.payments[0].state is PaymentState.CREATED
    assert not sandbox.get("payments")
    kept = client.get(order.path)
    assert "Continue to payment" in kept.text and 'http-equiv="refresh"' in kept.text
    assert client.get(link).location == order.path
    later(minutes=4)
    onward = post(client, f"{order.path}/pay", page=order.path, provider=order.payments[0].provider)
    assert onward.location == sandbox.get("payments")[0]["hosted_url"]
    # There they have longer: ten minutes from the order in all, and whoever has paid by then has paid.
    payment = newest_order().payments[0]
    assert payment.closes_at is not None and payment.closes_at - payment.created_at == waiting_line.PAYING
    sandbox.do(str(payment.provider_id), "pay")
    later(minutes=10)
    sweeping.run("test")
    assert newest_order().state is OrderState.COMPLETED
    assert client.get(link).location == order.path


def test_what_nobody_goes_on_to_pay_for_is_others_after_five_minutes(
    app: Flask, client: FlaskClient, later: Callable[..., None]
) -> None:
    event = lined(3)
    first = order(event, confirmed(event, "a@example.org"))
    # With everything held, too, a place can be taken.
    kind = event.ticket_types[0]
    kind.held, held = kind.capacity, kind.held
    db.session.commit()
    page = client.get("/events/rush").text
    assert "Take a place in the line" in page and "Look again" not in page
    kind.held = held
    db.session.commit()
    others = [confirmed(event, f"{name}@example.org") for name in "bc"]
    assert [look(event, one).state for one in others] == ["waiting", "waiting"]
    later(minutes=5, seconds=1)
    assert look(event, others[0]).state == "turn"
    db.session.refresh(first)
    assert (first.state, first.stock_state) == (OrderState.EXPIRED, StockState.RELEASED)
    assert mails("order_expired")[-1].order_id == first.id
    # Who comes back to it takes another place; it is not kept again for nothing.
    with pytest.raises(DomainError, check=lambda error: error.code == "line"):
        managing.pay_again(first.id, "stripe", payer_id=None)
    assert starting.open_at_provider(first) is None


def test_an_address_has_one_place_and_it_lapses(app: Flask, later: Callable[..., None]) -> None:
    event = lined(9)
    own = confirmed(event, "a@example.org")
    assert look(event, own).state == "turn"
    assert confirmed(event, "a@example.org").id == own.id
    later(minutes=5, seconds=1)
    assert look(event, own).state == "lapsed"
    with pytest.raises(waiting_line.Waits, check=lambda error: error.code == "line_over"):
        place(event, email="a@example.org", turn=own.secret)
    again = confirmed(event, "a@example.org")
    assert again.id != own.id
    made = order(event, again)
    # While what it ordered is kept, the address has no second place.
    assert confirmed(event, "a@example.org").order_id == made.id
    # Nor does somebody else's secret help, nor another address.
    with pytest.raises(waiting_line.Waits):
        place(event, email="b@example.org", turn=again.secret)


def test_a_network_holds_a_third_and_its_buyers_wait_without_being_refused(
    app: Flask, later: Callable[..., None]
) -> None:
    event = lined(9)
    crowd = [confirmed(event, f"here{number}@example.org") for number in range(7)]
    held = [order(event, one) for one in crowd[:3]]
    assert [look(event, one).state for one in crowd[3:]] == ["waiting"] * 4
    # Others are not held up by them.
    elsewhere = confirmed(event, "there@example.com", THERE)
    later(seconds=4)
    assert look(event, elsewhere).state == "turn"
    order(event, elsewhere, where=THERE)
    # Who goes on to pay makes room at once, as long as a third stays free.
    later(seconds=4)
    starting.open_at_provider(held[0])
    assert look(event, crowd[3]).state == "turn"
    assert look(event, crowd[4]).ahead == 0


def test_several_are_had_while_there_are_enough_for_who_waits(
    app: Flask, sandbox: Sandbox, later: Callable[..., None]
) -> None:
    """Else ten orders of ten would keep a hundred others waiting, each time anew."""
    event = lined(12)
    crowd = [confirmed(event, f"here{number}@example.org") for number in range(10)]
    first = crowd[0]
    look(event, first)
    with pytest.raises(waiting_line.Waits, match="6 others wait .* Choose 1, or wait") as refused:
        place(event, 2, email=first.email, turn=first.secret, client_address=HERE)
    assert refused.value.code == "line_share"
    made = place(event, email=first.email, turn=first.secret, client_address=HERE)
    # Nobody else's network is meant by it.
    elsewhere = confirmed(event, "there@example.com", THERE)
    later(seconds=4)
    order(event, elsewhere, 3, where=THERE)
    # At the provider it ends after ten minutes, in whatever way it is to be paid; and who waits is mailed.
    starting.open_at_provider(made)
    later(minutes=8)
    managing.pay_again(made.id, "sumup", payer_id=None)
    changed = newest(made)
    assert (changed.provider, changed.closes_at) == ("sumup", made.created_at + waiting_line.PAYING)
    later(minutes=2, seconds=1)
    line_turns.look_after()
    db.session.refresh(made)
    assert (made.state, made.stock_state) == (OrderState.EXPIRED, StockState.RELEASED)
    told = mails("line_turn")
    assert {mail.to for mail in told} >= {crowd[5].email} and all(not mail.unproven for mail in told)
    assert len({mail.to for mail in told}) == len(told)


def newest(made: Order) -> Payment:
    db.session.refresh(made)
    return made.payments[-1]


def test_one_order_has_a_third_at_most_and_the_place_is_kept(app: Flask, client: FlaskClient) -> None:
    event = lined(9)
    own = confirmed(event, "a@example.org")
    look(event, own)
    fields = {
        "name": "Ada",
        "email": "a@example.org",
        f"quantity-{event.ticket_types[0].id}": "4",
        "place": own.secret,
    }
    client.environ_base["REMOTE_ADDR"] = HERE
    assert "At most 3 in one order" in client.get(f"/events/rush/line/{own.secret}").text
    answer = post(client, "/events/rush", page=f"/events/rush/line/{own.secret}", **fields)
    assert answer.status_code == 409 and "at most 3" in answer.text
    assert db.session.query(Order).count() == 0
    # Their turn goes on: the form is there again, to choose fewer in.
    assert 'id="buy"' in answer.text and "It is your turn" in answer.text
    fields[f"quantity-{event.ticket_types[0].id}"] = "3"
    answer = post(client, "/events/rush", page=f"/events/rush/line/{own.secret}", **fields)
    assert answer.status_code == 303


def test_who_comes_while_others_hold_everything_can_wait_and_hears_when_all_is_sold(
    app: Flask, client: FlaskClient
) -> None:
    event = lined(1)
    first = order(event, confirmed(event, "a@example.org"))
    page = client.get("/events/rush").text
    assert "Take a place in the line" in page and "other people's baskets" not in page
    own = confirmed(event, "b@example.org")
    assert "You are next" in client.get(waiting_line.path(event, own)).text
    kind = event.ticket_types[0]
    kind.held, kind.sold, first.stock_state = 0, 1, StockState.SOLD
    db.session.commit()
    page = client.get(waiting_line.path(event, own)).text
    assert "Sold out." in page and "Your place is kept" in page and "You are next" not in page
    assert "refresh" not in page


def test_many_at_one_moment_hold_no_more_than_their_share(app: Flask) -> None:
    """Without the count behind the stock's lock, eight threads of one network would hold eight of nine."""
    event = lined(9)
    own = [confirmed(event, f"a{number}@example.org") for number in range(8)]
    now = clock.now()
    for one in own:
        one.turn_at, one.lapses_at = now, now + line_turns.TURN
    db.session.commit()
    keys, event_id = [(one.email, one.secret) for one in own], event.id

    def buy(number: int) -> bool:
        email, secret = keys[number]
        try:
            place(db.session.get_one(Event, event_id), email=email, turn=secret, client_address=HERE)
        except waiting_line.Waits as error:
            assert error.code == "line_share"
            return False
        return True

    assert at_once(app, 8, buy).count(True) == 3
    assert db.session.get_one(Event, event_id, populate_existing=True).ticket_types[0].held == 3


def test_it_goes_on_by_itself_and_tells_at_once(app: Flask, sandbox: Sandbox) -> None:
    event = make_event("rush", capacity=10, line=LineMode.AUTO)
    for number in range(5):
        place(event, email=f"a{number}@example.org")
    assert not event.has_line
    place(event, email="last@example.org")
    assert event.has_line
    outbox.deliver_due()
    told = sandbox.mail("alerts@example.org")[0]
    assert told["subject"] == "[Kassa Alert] Waiting Line On - Rush" and "6 of 10" in told["text"]
    with pytest.raises(waiting_line.Waits):
        place(event, email="next@example.org")
    # Off is the default, whatever is held.
    other = make_event("calm", capacity=2)
    place(other, 2)
    assert not other.has_line and config.get().waiting_line_share == 50


def test_an_organiser_switches_it_and_a_member_needs_no_mail(app: Flask, client: FlaskClient) -> None:
    event = make_event("rush")
    make_member("boss@example.org").role = make_user("x@example.org").role.ADMIN
    db.session.commit()
    log_in(client, "boss@example.org")
    desk = "/organiser/events/rush"
    assert post(client, f"{desk}/line", page=desk, line="on").status_code == 303
    assert event.has_line and "It is on" in client.get(desk).text
    taken = post(client, "/events/rush/line", page="/events/rush", email="boss@example.org")
    assert "/events/rush/line/" in taken.location and not mails("line_place")
    assert "It is your turn" in client.get(taken.location).text
    assert post(client, f"{desk}/line", page=desk, line="off").status_code == 303
    assert not event.has_line
    assert post(client, f"{desk}/line", page=desk, line="sometimes").status_code == 303
    assert event.line is LineMode.OFF
