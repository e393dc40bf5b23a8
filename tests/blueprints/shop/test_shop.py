"""What a buyer sees of the shop: the list, an event in every state, buying, and finding tickets again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from flask import Flask, render_template
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import select
from werkzeug.test import TestResponse

import config
from app import create_app
from blueprints import visitor
from domain import clock
from domain.catalogue import events
from domain.ledger import transfers
from domain.post import outbox
from extensions import db, limiter, network, network_key, queue
from models import (
    Event,
    EventState,
    MailBudget,
    MailState,
    Order,
    OrderState,
    OutboxMail,
    Page,
    Role,
    User,
)
from tests.support.people import log_in, mails, make_member, post
from tests.support.queries import recorded
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, place, settled
from tests.support.web import buy, newest_order


def form(event: Event, quantity: str = "1", **more: str) -> dict[str, str]:
    return {
        f"quantity-{event.ticket_types[0].id}": quantity,
        "name": "Ada Buyer",
        "email": "ada@example.org",
    } | more


def order_by_form(client: FlaskClient, event: Event, **fields: str) -> TestResponse:
    return post(client, f"/events/{event.slug}", **fields)


# --- The list and the event -----------------------------------------------------------------------------


def test_the_list_shows_what_is_on(client: FlaskClient) -> None:
    make_event(price_minor=2500)
    make_event("draft", state=EventState.DRAFT)
    page = client.get("/").text
    assert "Concert" in page
    assert "Town Hall" in page
    assert "€25.00" in page
    assert "Draft" not in page


def test_an_empty_house_says_so(client: FlaskClient) -> None:
    assert "The house is dark" in client.get("/").text


def test_the_event_page_has_one_form_with_the_fixed_fields(client: FlaskClient) -> None:
    event = make_event(providers=["stripe"])
    page = client.get("/events/concert").text
    assert page.count('<form method="post"') == 1
    for name in ("name", "email", f"quantity-{event.ticket_types[0].id}", "form_token", "csrf_token"):
        assert f'name="{name}"' in page
    assert 'type="radio"' not in page


def test_where_there_is_a_choice_it_is_made_by_radio_buttons(client: FlaskClient) -> None:
    make_event(providers=["sumup", "stripe"])
    page = client.get("/events/concert").text
    chosen = re.findall(r'<input[^>]*type="radio"[^>]*name="provider"[^>]*value="(\w+)"([^>]*)>', page)
    assert [name for name, _ in chosen] == ["sumup", "stripe"]
    assert ["checked" in rest for _, rest in chosen] == [True, False]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": EventState.CANCELLED}, "was cancelled"),
        ({"starts_at": -2, "ends_at": -1}, "This event is over"),
        ({"sales_open_at": 1}, "Tickets go on sale on"),
        ({"sales_close_at": -1}, "Ticket sales have closed"),
    ],
)
def test_why_it_does_not_sell_is_said_and_kept(
    client: FlaskClient, changes: dict[str, Any], words: str
) -> None:
    now = clock.now()
    days: dict[str, Any] = {
        k: now + timedelta(days=v) if isinstance(v, int) else v for k, v in changes.items()
    }
    event = make_event(**days)
    page = client.get("/events/concert")
    assert page.status_code == 200
    assert words in page.text
    assert 'id="buy"' not in page.text
    answer = post(client, "/events/concert", page="/tickets/find", **form(event))
    assert answer.status_code == 409
    assert words in answer.text
    assert db.session.query(Order).count() == 0


def test_sold_out_and_all_held_are_different_words(client: FlaskClient) -> None:
    event = make_event(capacity=1)
    order = place(event)
    assert "Try again" in client.get("/events/concert").text
    settled(order, "open", "paid")
    assert "Sold out" in client.get("/events/concert").text


def test_a_draft_is_for_its_organiser_and_admins(client: FlaskClient) -> None:
    make_event(state=EventState.DRAFT)
    assert client.get("/events/concert").status_code == 404
    make_member(role=Role.ADMIN)
    log_in(client)
    assert "only its organiser and admins see it" in client.get("/events/concert").text.lower()


def test_without_a_provider_nothing_that_costs_is_sold(client: FlaskClient, app: Flask) -> None:
    event = make_event()
    config.use(replace(config.get(), mail_server=""))
    assert "cannot be paid for here" in client.get("/events/concert").text
    answer = post(client, "/events/concert", page="/tickets/find", **form(event))
    assert answer.status_code == 409


def test_the_event_page_costs_at_most_three_queries(client: FlaskClient) -> None:
    event = make_event(capacity=1)
    for number in range(6):
        events.add_ticket_type(event, name=f"Kind {number}", price_minor=1000, capacity=5)
    place(event)
    db.session.remove()
    with recorded() as seen:
        assert client.get("/events/concert").status_code == 200
    assert len(seen) <= 3, seen


def test_the_list_costs_the_same_for_many_events(client: FlaskClient) -> None:
    make_event("first")
    with recorded() as one:
        client.get("/")
    for number in range(5):
        make_event(f"more-{number}")
    db.session.remove()
    with recorded() as six:
        client.get("/")
    assert len(one) == len(six) <= 3


def test_what_an_organiser_writes_is_text(client: FlaskClient) -> None:
    make_event(title="<b>Gala</b>", description="<script>alert(1)</script>\n\nSecond")
    page = client.get("/events/concert").text
    assert "<b>Gala" not in page
    assert "<script>alert" not in page
    assert "<p>Second</p>" in page


def test_the_calendar_file_of_an_event(client: FlaskClient) -> None:
    make_event()
    answer = client.get("/events/concert/calendar.ics")
    assert answer.mimetype == "text/calendar"
    assert b"BEGIN:VEVENT" in answer.data


def test_a_picture_is_kept_by_browsers_for_good(client: FlaskClient) -> None:
    out = BytesIO()
    Image.new("RGB", (64, 36), "red").save(out, "PNG")
    picture = events.set_picture(make_event(), out.getvalue())
    assert picture is not None
    path = f"/pictures/{picture.sha256}"
    assert path in client.get("/").text
    first = client.get(path)
    assert first.mimetype == "image/jpeg"
    assert "immutable" in first.headers["Cache-Control"]
    etag = first.headers["ETag"]
    again = client.get(path, headers={"If-None-Match": etag})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get("/pictures/nothing").status_code == 404


# --- Buying ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "  "}, "name"),
        ({"email": "ada"}, "email"),
        ({"email": ""}, "email"),
        ({"quantity": "0"}, "quantities"),
        ({"quantity": ""}, "quantities"),
        ({"quantity": "-1"}, "quantity"),
        ({"quantity": "two"}, "quantity"),
        ({"quantity": "11"}, "quantity"),
        ({"quantity": "99999999999"}, "quantity"),
    ],
)
def test_a_mistake_is_shown_beside_its_field_and_the_rest_is_kept(
    client: FlaskClient, changes: dict[str, str], field: str
) -> None:
    event = make_event(capacity=50)
    answer = order_by_form(client, event, **form(event, **changes))
    assert answer.status_code == 400
    name = f"quantity-{event.ticket_types[0].id}" if field == "quantity" else field
    assert f'id="{name}-problem"' in answer.text
    assert ('value="Ada Buyer"' in answer.text) == ("name" not in changes)
    assert db.session.query(Order).count() == 0


def test_all_mistakes_are_shown_at_once(client: FlaskClient) -> None:
    event = make_event()
    answer = order_by_form(client, event, **form(event, "0", name="", email="x"))
    assert "3 fields" in answer.text


def test_what_goes_meanwhile_is_a_conflict_with_fresh_numbers(client: FlaskClient) -> None:
    event = make_event(capacity=5)
    place(event, 3)
    answer = order_by_form(client, event, **form(event, "4"))
    assert answer.status_code == 409
    assert "only 2 left" in answer.text
    assert 'max="2"' in answer.text


def test_the_same_form_twice_is_one_order_and_a_changed_one_another(client: FlaskClient) -> None:
    event = make_event(price_minor=0)
    page = client.get("/events/concert").text
    tokens = {
        name: found[1]
        for name in ("csrf_token", "form_token")
        if (found := re.search(rf'name="{name}" value="([^"]+)"', page))
    }
    first = client.post("/events/concert", data=form(event) | tokens)
    again = client.post("/events/concert", data=form(event) | tokens)
    assert first.headers["Location"] == again.headers["Location"]
    assert db.session.query(Order).count() == 1
    changed = client.post("/events/concert", data=form(event, "2") | tokens)
    assert changed.headers["Location"] != first.headers["Location"]
    assert db.session.query(Order).count() == 2


def test_a_form_without_its_token_is_refused(client: FlaskClient) -> None:
    event = make_event()
    answer = client.post("/events/concert", data=form(event))
    assert answer.status_code == 400
    assert "open for too long" in answer.text
    assert db.session.query(Order).count() == 0


def test_a_free_order_is_complete_at_once(client: FlaskClient) -> None:
    event = make_event(price_minor=0)
    answer = buy(client, event, 2)
    assert answer.status_code == 303
    order = newest_order()
    assert answer.headers["Location"] == address(order)
    page = client.get(address(order)).text
    assert "Booked" in page
    assert page.count('class="admit-qr"') == 2


def _give(user: User, amount_minor: int) -> None:
    transfers.post(
        key="gift",
        debit=transfers.PLATFORM,
        credit=transfers.wallet_of(user.id, "EUR").account,
        amount_minor=amount_minor,
        currency="EUR",
        kind="adjustment",
    )
    db.session.commit()


def test_a_member_pays_from_the_wallet(client: FlaskClient) -> None:
    event, user = make_event(price_minor=2500), make_member()
    _give(user, 6000)
    log_in(client)
    page = client.get("/events/concert").text
    assert 'value="ann@example.org"' in page
    assert 'type="radio" name="provider" id="provider-wallet"' in page
    assert "€60.00 in it" in page
    answer = order_by_form(client, event, **form(event, "2", provider="wallet"))
    order = newest_order()
    assert answer.headers["Location"] == address(order)
    assert (order.state, order.user_id) == (OrderState.COMPLETED, user.id)
    assert transfers.balance(f"wallet:{user.id}", "EUR") == 1000


def test_a_wallet_with_too_little_says_so_and_another_way_is_open(client: FlaskClient) -> None:
    event, user = make_event(price_minor=2500), make_member()
    _give(user, 2500)
    log_in(client)
    answer = order_by_form(client, event, **form(event, "2", provider="wallet"))
    assert answer.status_code == 303
    page = client.get(answer.headers["Location"]).text
    assert 'role="alert"' in page
    assert "Try again" in page
    assert newest_order().state is OrderState.FAILED
    assert transfers.balance(f"wallet:{user.id}", "EUR") == 2500


@pytest.fixture
def limited(app: Flask) -> Iterator[FlaskClient]:
    """A browser of an application whose limits are on, and whose Redis is gone: they hold all the same."""
    settings = config.get()
    other = create_app(replace(settings, limits=True, redis_url="redis://127.0.0.1:9"))
    try:
        yield other.test_client()
    finally:
        limiter.enabled = False
        config.use(settings)
        queue.bind(settings.redis_url)
        with other.app_context():
            db.engine.dispose()


def test_one_mail_address_orders_twenty_times_an_hour(limited: FlaskClient) -> None:
    event = make_event(price_minor=0, capacity=100)
    codes = [order_by_form(limited, event, **form(event)).status_code for _ in range(21)]
    assert codes == [303] * 20 + [429]
    assert order_by_form(limited, event, **form(event, email="bo@example.org")).status_code == 303
    assert db.session.query(Order).count() == 21


def test_one_address_is_counted_once_however_it_is_spelled(limited: FlaskClient) -> None:
    """In full-width letters, in capitals, after blanks: one budget, and nobody is refused."""
    spelled = ["ada@example.org", "ADA@example.org", "ada@\uff45xample.org", "ada@example\uff0eorg"]
    spelled += [blank * 600 + "ada@example.org" for blank in " \u3000"]
    codes = [post(limited, "/tickets/find", email=typed).status_code for typed in (*spelled, spelled[0])]
    assert codes == [303] * 7
    assert [counted.count for counted in db.session.scalars(select(MailBudget))] == [7]


def test_an_order_is_counted_once_however_its_code_is_spelled(limited: FlaskClient) -> None:
    order = place(make_event(price_minor=0))
    number = order.code.removeprefix("ORD-")
    codes = [
        post(limited, f"/o/{start}-{number}/{order.secret}/resend", page="/tickets/find").status_code
        for start in ("ORD", "ord", "Ord", "oRD", "orD", "OrD")
    ]
    assert codes == [303] * 5 + [429]


def test_an_order_s_limits_count_what_is_found(app: Flask) -> None:
    """Capitals of other letters are plain ones, too."""
    keys: dict[str, set[str]] = {"x": set(), "y": set()}
    for code in ("ORD-SISS", "ord-siss", "ORD-\u017fI\xdf", "ord-s\u0131ss"):
        for door in ("/o/{}/{}/check", "/pay/success/{}/{}"):
            for secret in keys:
                path = door.format(code, secret)
                with app.test_request_context(path, method="POST" if "check" in door else "GET"):
                    keys[secret].add(visitor.order_key())
    assert [len(found) for found in keys.values()] == [1, 1]
    # Who knows the code alone uses up nothing of whoever has the link.
    assert not keys["x"] & keys["y"]


def test_a_subscriber_of_ipv6_is_counted_once(app: Flask) -> None:
    """A subscriber has as many addresses as they like, all in one network."""
    keys = set()
    for number in range(3):
        with app.test_request_context(environ_base={"REMOTE_ADDR": f"2001:db8:1:2::{number:x}"}):
            keys.add(network_key())
    assert keys == {"2001:db8:1:2::/64"}
    assert network("::ffff:192.0.2.7") == "192.0.2.7" != network("::ffff:192.0.2.8")


def test_mistakes_do_not_use_up_the_limit(limited: FlaskClient) -> None:
    event = make_event(price_minor=0)
    for _ in range(25):
        assert order_by_form(limited, event, **form(event, "0")).status_code == 400
    assert order_by_form(limited, event, **form(event)).status_code == 303


# --- Finding tickets, and the operator's texts ----------------------------------------------------------


def test_finding_tickets_answers_the_same_for_everybody(client: FlaskClient) -> None:
    place(make_event(), email="ada@example.org")
    pages = []
    for email in ("ada@example.org", "bob@example.org"):
        answer = post(client, "/tickets/find", email=email)
        assert answer.status_code == 303
        pages.append(client.get(answer.headers["Location"]).text.replace(email, ""))
    tokens = r'value="[^"]+"'
    assert re.sub(tokens, "", pages[0]) == re.sub(tokens, "", pages[1])
    links = mails("order_links")
    assert [mail.to for mail in links] == ["ada@example.org"]
    assert "/o/ORD-" in links[0].context["links"][0]["url"]


def test_the_links_of_a_mail_that_was_sent_are_forgotten(client: FlaskClient, sandbox: Sandbox) -> None:
    """Whoever reads the database afterwards finds no way into an order."""
    order = place(make_event(), email="ada@example.org")
    way_in = f"/o/{order.code}/{order.secret}"
    post(client, "/tickets/find", email="ada@example.org")
    outbox.deliver_due()
    mail = db.session.scalars(select(OutboxMail).filter_by(kind="order_links")).one()
    assert (mail.state, mail.context) == (MailState.SENT, {})
    sent = [letter["text"] for letter in sandbox.mail("ada@example.org")]
    assert any(way_in in text for text in sent)


def test_finding_tickets_wants_an_address(client: FlaskClient) -> None:
    answer = post(client, "/tickets/find", email="ada")
    assert answer.status_code == 400
    assert 'id="email-problem"' in answer.text
    assert 'value="ada"' in answer.text


@pytest.mark.parametrize("slug", ["terms", "privacy", "contact"])
def test_the_texts_have_words_until_the_operator_writes_some(client: FlaskClient, slug: str) -> None:
    assert "help@example.org" in client.get(f"/{slug}").text
    page = Page(slug=slug, title="Ours", body="One.\n\n<b>Two</b>", updated_at=clock.now())
    db.session.add(page)
    db.session.commit()
    shown = client.get(f"/{slug}").text
    assert "<h1>Ours</h1>" in shown
    assert "&lt;b&gt;Two" in shown


# --- Every page -----------------------------------------------------------------------------------------


def test_every_page_tells_test_mode_and_carries_no_inline_code(client: FlaskClient) -> None:
    event = make_event()
    order = settled(place(event, 2), "open", "paid")
    for path in ("/", "/events/concert", address(order), "/tickets/find", "/terms", "/nothing"):
        page = client.get(path)
        assert "Test mode: no real money" in page.text
        assert "unsafe-inline" not in page.headers["Content-Security-Policy"]
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", page.text), path


def test_a_live_key_shows_no_test_banner(migrated: Flask, client: FlaskClient) -> None:
    settings = replace(config.get(), stripe_secret_key="sk_live_x")
    with migrated.test_request_context("/"):
        assert "Test mode" in render_template("base.html")
        assert "Test mode" not in render_template("base.html", settings=settings)
        # Where only SumUp is set up, its account says whether money is real.
        sumup_alone = replace(config.get(), stripe_secret_key="")
        assert "Test mode" in render_template("base.html", settings=sumup_alone)
        real = replace(sumup_alone, sumup_test_account=False)
        assert "Test mode" not in render_template("base.html", settings=real)


def test_what_is_missing_says_what_to_do_next(client: FlaskClient) -> None:
    page = client.get("/nothing")
    assert page.status_code == 404
    assert "What to do next" in page.text
    assert "help@example.org" in page.text


@pytest.mark.parametrize("path", ["/o/%00/x", "/o/ORD-%00/x.json", "/events/%00", "/pictures/%00"])
def test_a_text_that_no_database_has_is_no_fault_of_ours(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 400


def test_an_order_page_is_kept_by_nobody_in_between(client: FlaskClient) -> None:
    order = place(make_event(), 2)
    assert client.get(address(order)).headers["Cache-Control"] == "private, no-cache"
    assert client.get(f"{address(order)}.json").headers["Cache-Control"] == "private, no-store"


def test_a_form_may_lead_to_stripes_page_at_a_domain_of_ones_own(client: FlaskClient) -> None:
    config.use(replace(config.get(), stripe_checkout_domain="pay.example.org"))
    policy = client.get("/").headers["Content-Security-Policy"]
    allowed = policy.partition("form-action ")[2].split(";")[0].split()
    assert {"'self'", "https://checkout.stripe.com", "https://pay.example.org"} <= set(allowed)
