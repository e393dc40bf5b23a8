"""A member enters an athlete by the forms, without JavaScript, and sees what became of it."""

from __future__ import annotations

import re
from datetime import date

import pytest
from flask.testing import FlaskClient

from domain import site_texts
from domain.catalogue import events
from domain.orders import event_cancellation
from domain.people import accounts, athletes
from extensions import db
from models import Event, EventState, OrderState, Participant, ParticipantState
from tests.support.people import log_in, make_member, post
from tests.support.queries import recorded
from tests.support.sandbox import Sandbox
from tests.support.shop import settled
from tests.support.tournaments import add_category, make_athlete, make_tournament
from tests.support.web import newest_order, path_of

ATHLETE = {
    "name": "Cho Child",
    "birth_date": "2016-03-01",
    "sex": "female",
    "club": "Dojo",
    "weight": "31,5",
    "grade": "-8",
}


@pytest.fixture
def ann(client: FlaskClient) -> FlaskClient:
    make_member()
    log_in(client)
    return client


def page_of(event: Event, kind: int = 0) -> str:
    return f"/tournaments/{event.slug}/enter/{event.ticket_types[kind].id}"


def test_from_the_list_to_the_place(ann: FlaskClient, sandbox: Sandbox) -> None:
    event = make_tournament(own={"rules": "No biting."})
    assert 'href="/tournaments/open"' in ann.get("/tournaments/").text
    assert 'href="/tournaments/open"' in ann.get("/").text
    shown = ann.get("/tournaments/open").text
    assert "No biting." in shown and "€25.00" in shown and page_of(event) in shown
    assert "Add an athlete" in ann.get(page_of(event)).text
    assert post(ann, "/account/athletes/new", **ATHLETE).status_code == 303
    [athlete] = re.findall(r'value="(athlete_[^"]+)"', ann.get(page_of(event)).text)
    answer = post(ann, page_of(event), athlete=athlete, provider="stripe")
    assert answer.status_code == 400 and "a parent or guardian has to agree first" in answer.text
    [read] = re.findall(r'name="consent_text" value="(\w+)"', answer.text)
    answer = post(ann, page_of(event), athlete=athlete, provider="stripe", consent="yes", consent_text=read)
    order = newest_order()
    assert (answer.status_code, answer.location) == (303, order.payments[0].url)
    shown_at = sandbox.do(order.payments[0].provider_id or "", "pay")
    page = ann.get(path_of(shown_at["success_url"]), follow_redirects=True).text
    assert "Cho Child" in page and "Cho Child is entered" in page
    assert "2016" not in page and "31.5" not in page
    mine = ann.get("/account/entries").text
    assert "Cho Child: Kumite" in mine and "entered" in mine


def test_what_is_typed_of_an_athlete_is_checked_and_kept(ann: FlaskClient) -> None:
    for field, value, words in (
        ("birth_date", "31.5.2012", "such as 2012-05-31"),
        ("birth_date", "2099-01-01", "such as 2012-05-31"),
        ("weight", "heavy", "in kilograms"),
        ("name", "Win: www.prize.example", "does not look like a name"),
        ("grade", "77", "Not a valid choice"),
    ):
        answer = post(ann, "/account/athletes/new", **(ATHLETE | {field: value}))
        assert answer.status_code == 400 and words in answer.text, (field, value)
    post(ann, "/account/athletes/new", **ATHLETE)
    [path] = set(re.findall(r"/account/athletes/athlete_[\w-]+", ann.get("/account/athletes").text))
    shown = ann.get(path).text
    assert 'value="31.5"' in shown and 'value="2016-03-01"' in shown
    post(ann, path, **(ATHLETE | {"club": "Other Dojo", "weight": ""}))
    assert "Other Dojo, 8th kyu" in ann.get("/account/athletes").text
    post(ann, f"{path}/remove", page=path)
    ann.get("/account/athletes")
    assert "Cho Child" not in ann.get("/account/athletes").text
    assert ann.get(path).status_code == 404


def test_an_entry_is_withdrawn_once(ann: FlaskClient) -> None:
    event = make_tournament(fee_minor=0)
    user = accounts.find("ann@example.org")
    assert user is not None
    athlete = make_athlete(user)
    assert post(ann, page_of(event), athlete=athlete.public_id).status_code == 303
    [path] = re.findall(r'action="(/account/entries/[^"]+/withdraw)"', ann.get("/account/entries").text)
    assert post(ann, path, page="/account/entries").location == "/account/entries"
    shown = ann.get("/account/entries").text
    assert "The entry is withdrawn." in shown and "withdrawn</span>" in shown and "/withdraw" not in shown
    participant = db.session.query(Participant).one()
    assert participant.state is ParticipantState.WITHDRAWN
    page = ann.get(participant.order.path).text
    assert "Aiko Adult is not entered any more" in page and "It was free" in page
    assert "is entered<" not in page and "ticket" not in words_of(page)
    post(ann, page_of(event), athlete=athlete.public_id)
    event_cancellation.cancel(event, refund=False, actor_id=user.id)
    mine = ann.get("/account/entries").text
    assert "tournament cancelled</span>" in mine and "/withdraw" not in mine
    assert "This tournament was cancelled" in ann.get(page_of(event)).text


def test_another_member_s_athletes_and_entries_are_not_there(ann: FlaskClient) -> None:
    event, other = make_tournament(fee_minor=0), make_member("bob@example.org")
    theirs = make_athlete(other)
    assert ann.get(f"/account/athletes/{theirs.public_id}").status_code == 404
    make_athlete(accounts.find("ann@example.org") or other)
    answer = post(ann, page_of(event), athlete=theirs.public_id)
    assert answer.status_code == 400 and "no such athlete" in answer.text
    assert db.session.query(Participant).count() == 0


def test_strangers_read_and_are_asked_to_log_in(client: FlaskClient) -> None:
    event = make_tournament()
    assert client.get("/tournaments/open").status_code == 200
    assert "/account/login" in client.get(page_of(event)).location
    for path in ("/account/athletes", "/account/athletes/new", "/account/entries"):
        assert "/account/login" in client.get(path).location


def test_a_draft_is_its_makers_own(client: FlaskClient) -> None:
    event = make_tournament()
    event.state = EventState.DRAFT
    db.session.commit()
    assert client.get("/tournaments/open").status_code == 404
    assert client.get("/tournaments/none").status_code == 404


def test_a_tournament_s_place_is_not_bought_as_a_ticket(ann: FlaskClient) -> None:
    event = make_tournament()
    assert ann.get("/events/open").location == "/tournaments/open"
    fields = {"name": "Ann", "email": "ann@example.org", f"quantity-{event.ticket_types[0].id}": "1"}
    answer = post(ann, "/events/open", page="/account/athletes/new", **fields)
    assert (answer.status_code, answer.location) == (303, "/tournaments/open")
    assert db.session.query(Participant).count() == 0
    assert event.ticket_types[0].held == 0


def test_a_fee_that_changed_is_shown_before_it_is_paid(ann: FlaskClient) -> None:
    event = make_tournament()
    athlete = make_athlete(accounts.find("ann@example.org") or make_member("x@example.org"))
    answer = post(ann, page_of(event), athlete=athlete.public_id, provider="stripe", price="2000 EUR")
    assert answer.status_code == 409 and "€25.00 now" in answer.text
    assert db.session.query(Participant).count() == 0


def test_an_entry_that_was_not_paid_is_paid_at_the_fee_of_today(ann: FlaskClient) -> None:
    event = make_tournament()
    athlete = make_athlete(accounts.find("ann@example.org") or make_member("x@example.org"))
    post(ann, page_of(event), athlete=athlete.public_id, provider="stripe")
    before = newest_order()
    settled(before, "open", "expired")
    form = ann.get(page_of(event)).text
    assert "not paid for yet" in form and before.path in form and 'type="radio" name="athlete"' not in form
    page = ann.get(before.path).text
    assert "Aiko Adult, Open: Kumite" in page and "its place is free for others" in page
    assert "Is Aiko Adult to take part?" in page and "ticket" not in words_of(page)
    events.update_ticket_type(event.ticket_types[0], price_minor=3000)
    assert "Enter again for €30.00" in ann.get(before.path).text
    answer = post(ann, f"{before.path}/pay", page=before.path, provider="stripe")
    after = newest_order()
    assert answer.location == after.payments[0].url and after.total_minor == 3000
    first, second = db.session.query(Participant).order_by(Participant.id)
    assert (first.order_id, first.state, second.state) == (before.id, "WITHDRAWN", "PENDING")
    assert (second.order_id, second.athlete_id, event.ticket_types[0].held) == (after.id, athlete.id, 1)
    assert "This entry was withdrawn" in ann.get(before.path).text


def test_an_open_payment_waits_for_the_consent_of_today(ann: FlaskClient, sandbox: Sandbox) -> None:
    event, user = make_tournament(), accounts.find("ann@example.org")
    child = make_athlete(user or make_member("x@example.org"), "Cho Child", birth_date=date(2016, 3, 1))
    read = {"consent": "yes", "consent_text": athletes.consent_hash()}
    post(ann, page_of(event), athlete=child.public_id, provider="stripe", **read)
    order = newest_order()
    assert (order.payments[0].url or "-") in ann.get(order.path).text
    site_texts.write("consent", title="Consent", body="Another text.\r\n\r\nOf two parts.")
    page = ann.get(order.path).text
    assert "Read it, and agree" in page and (order.payments[0].url or "-") not in page
    entered = ann.get("/account/entries").text
    [path] = re.findall(r'action="(/account/athletes/[^"]+/consent)"', entered)
    assert "<p>Another text.</p><p>Of two parts.</p>" in entered
    post(ann, path, page="/account/entries", consent_text=athletes.consent_hash())
    assert (order.payments[0].url or "-") in ann.get(order.path).text


def words_of(page: str) -> str:
    """What a page says of its own, without its address, its menu and its scripts."""
    return re.sub(r"<[^>]+>|tickets-title", " ", page.split("<main")[1].split("</main>")[0]).lower()


def test_a_full_category_says_so(ann: FlaskClient) -> None:
    event = make_tournament(fee_minor=0, places=1)
    user = accounts.find("ann@example.org") or make_member("x@example.org")
    first, second = make_athlete(user, "One"), make_athlete(user, "Two")
    post(ann, page_of(event), athlete=first.public_id)
    assert "Every category is full." in ann.get("/tournaments/open").text
    assert "Full" in ann.get(page_of(event)).text
    for path in ("/", "/tournaments/"):
        assert ">Full</span>" in ann.get(path).text, path
    html = ann.get("/account/athletes/new").text
    token = re.search(r'name="csrf_token" value="([^"]+)"', html)
    answer = ann.post(
        page_of(event), data={"athlete": second.public_id, "csrf_token": token[1] if token else ""}
    )
    assert answer.status_code == 409
    assert newest_order().state is OrderState.COMPLETED


def test_the_public_list_has_names_and_clubs_alone(client: FlaskClient) -> None:
    event = make_tournament(fee_minor=0, own={"public_list": True})
    user = make_member()
    log_in(client)
    child = make_athlete(user, "Aiko Adult", weight_g=61_500, grade=2)
    post(client, page_of(event), athlete=child.public_id)
    shown = client.application.test_client().get("/tournaments/open").text
    assert "Start list" in shown and "Aiko Adult" in shown and "Dojo" in shown
    assert "1995" not in shown and "61.5" not in shown and "ann@example.org" not in shown
    event = make_tournament("secret", fee_minor=0)
    post(client, page_of(event), athlete=child.public_id)
    assert "Aiko" not in client.application.test_client().get("/tournaments/secret").text


def test_what_the_pages_cost_does_not_grow(ann: FlaskClient) -> None:
    event = make_tournament(fee_minor=0, places=100)
    user = accounts.find("ann@example.org") or make_member("x@example.org")
    for n in range(2):
        post(ann, page_of(event), athlete=make_athlete(user, f"Athlete {n}").public_id)
    for _ in range(3):
        add_category(event, fee_minor=0)
    few = {}
    for path in (
        "/tournaments/open",
        "/tournaments/",
        "/account/entries",
        "/account/athletes",
        page_of(event),
    ):
        with recorded() as queries:
            ann.get(path)
        few[path] = len(queries)
    for n in range(8):
        post(ann, page_of(event), athlete=make_athlete(user, f"More {n}").public_id)
        add_category(event, fee_minor=0)
    for path, before in few.items():
        with recorded() as queries:
            ann.get(path)
        assert len(queries) == before, path
