"""SumUp's OAuth: the page where a merchant allows the app, codes, and tokens that rotate."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sumup.errors import AuthenticationError

from tests.sandbox.conftest import fitting, sumup_client, token_of
from tests.support.sandbox import Sandbox

BACK = "https://shop.example.org/connected?from=sumup"
CLIENT = {"client_id": "cc_classic_kassa_sandbox", "client_secret": "cc_sk_classic_kassa_sandbox"}
WISH = {
    "response_type": "code",
    "client_id": CLIENT["client_id"],
    "redirect_uri": BACK,
    "scope": "payments user.profile_readonly",
    "state": "a b&c",
}


@pytest.fixture
def http(box: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{box.base_url}/sumup", trust_env=False) as client:
        yield client


def decide(http: httpx.Client, do: str = "allow", merchant: str = "MHARBOUR", **wish: str) -> dict[str, str]:
    """Presses a button of the page; what the app is told."""
    answer = http.post("/authorize", params=WISH | wish, data={"merchant": merchant, "do": do})
    assert answer.status_code == 302, answer.text
    assert answer.headers["Location"].startswith(f"{BACK}&")
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def token(http: httpx.Client, **form: str) -> httpx.Response:
    answer = http.post("/token", data=CLIENT | form)
    fitting(answer)
    return answer


def exchange(http: httpx.Client, code: str, redirect_uri: str = BACK) -> httpx.Response:
    return token(http, grant_type="authorization_code", code=code, redirect_uri=redirect_uri)


def refresh(http: httpx.Client, refresh_token: str) -> httpx.Response:
    return token(http, grant_type="refresh_token", refresh_token=refresh_token)


def works(box: Sandbox, tokens: dict[str, Any], merchant: str = "MHARBOUR") -> bool:
    with sumup_client(box, tokens["access_token"]) as sdk:
        try:
            return bool(sdk.merchants.get(merchant).merchant_code == merchant)
        except AuthenticationError:
            return False


# --- the page


def test_the_page(http: httpx.Client) -> None:
    text = http.get("/authorize", params=WISH).text
    assert text.count("<option") == 11
    for shown in ("Harbour Jazz Club", "take payments for you", "see your profile", "Allow", "Refuse"):
        assert shown in text
    assert "MKASSA01" not in text
    assert "<script" not in text


def test_allowing(box: Sandbox, http: httpx.Client) -> None:
    told = decide(http)
    assert told.keys() == {"from", "code", "state"}
    assert told["state"] == "a b&c"
    answer = exchange(http, told["code"])
    assert answer.status_code == 200
    assert (answer.json()["expires_in"], answer.json()["scope"]) == (3599, WISH["scope"])
    assert answer.headers["Cache-Control"] == "no-store"
    assert works(box, answer.json())


def test_refusing(http: httpx.Client) -> None:
    told = decide(http, do="refuse")
    assert (told["error"], told["state"], "code" in told) == ("access_denied", "a b&c", False)


def test_a_merchant_must_be_chosen(http: httpx.Client) -> None:
    answer = http.post("/authorize", params=WISH, data={"merchant": "", "do": "allow"})
    assert answer.status_code == 200
    assert "Choose whose account it is." in answer.text


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "payments everything"}, "invalid_scope"),
    ],
)
def test_what_the_app_asks_wrongly_is_told_to_it(
    http: httpx.Client, wish: dict[str, str], error: str
) -> None:
    assert decide(http, **wish)["error"] == error


@pytest.mark.parametrize(
    "wish",
    [
        {"client_id": "somebody"},
        {"redirect_uri": ""},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": "https://x/#y"},
    ],
)
def test_nobody_is_sent_to_an_address_that_is_not_the_app_s(http: httpx.Client, wish: dict[str, str]) -> None:
    assert http.get("/authorize", params=WISH | wish).status_code == 400


def test_a_registered_address_is_exact(box: Sandbox, http: httpx.Client) -> None:
    box.post("settings", {"sumup": {"redirect_uris": [BACK]}})
    assert http.get("/authorize", params=WISH).status_code == 200
    assert http.get("/authorize", params=WISH | {"redirect_uri": f"{BACK}&more=1"}).status_code == 400


def test_payments_needs_approval(box: Sandbox, http: httpx.Client) -> None:
    box.post("settings", {"sumup": {"payments_approved": False}})
    assert decide(http)["error"] == "invalid_scope"
    assert "code" in decide(http, scope="user.profile_readonly")


# --- codes


def test_a_code_is_good_once(http: httpx.Client) -> None:
    code = decide(http)["code"]
    assert exchange(http, code).status_code == 200
    again = exchange(http, code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


def test_a_code_needs_the_address_that_it_was_sent_to(http: httpx.Client) -> None:
    code = decide(http)["code"]
    assert exchange(http, code, "https://shop.example.org/connected").json()["error"] == "invalid_grant"
    assert exchange(http, code).status_code == 200


def test_a_code_grows_old(box: Sandbox, http: httpx.Client) -> None:
    code = decide(http)["code"]
    box.advance(301)
    assert exchange(http, code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"client_secret": "wrong", "grant_type": "refresh_token"}, 401, "invalid_client"),
        ({}, 400, "invalid_request"),
        ({"grant_type": "authorization_code"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant"),
    ],
)
def test_what_the_token_endpoint_refuses(
    http: httpx.Client, form: dict[str, str], status: int, error: str
) -> None:
    answer = token(http, **form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_json_is_no_form(http: httpx.Client) -> None:
    assert http.post("/token", json=CLIENT).json()["error"] == "invalid_request"


# --- tokens


def test_an_access_token_lives_an_hour_by_the_sandbox_s_clock(box: Sandbox) -> None:
    tokens = token_of(box, "MHARBOUR")
    box.advance(3590)
    assert works(box, tokens)
    box.advance(20)
    assert not works(box, tokens)


def test_each_refresh_rotates(box: Sandbox, http: httpx.Client) -> None:
    first = token_of(box, "MHARBOUR")
    second = refresh(http, first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert works(box, second)
    used = refresh(http, first["refresh_token"])
    assert (used.status_code, used.json()["error"]) == (400, "invalid_grant")
    assert refresh(http, second["refresh_token"]).status_code == 200


def test_of_ten_refreshes_at_once_one_wins(box: Sandbox, http: httpx.Client) -> None:
    tokens = token_of(box, "MHARBOUR")
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: refresh(http, tokens["refresh_token"]).status_code, range(10)))
    assert sorted(answers) == [200] + [400] * 9


def test_a_refresh_may_give_no_new_refresh_token(box: Sandbox, http: httpx.Client) -> None:
    box.post("settings", {"sumup": {"rotate_refresh": False}})
    tokens = token_of(box, "MHARBOUR")
    for _ in range(2):
        answer = refresh(http, tokens["refresh_token"]).json()
        assert "refresh_token" not in answer
        assert works(box, answer)


def test_basic_authentication_of_the_app(box: Sandbox, http: httpx.Client) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": token_of(box, "MHARBOUR")["refresh_token"]}
    assert http.post("/token", data=form, auth=(CLIENT["client_id"], "wrong")).status_code == 401
    assert http.post("/token", data=form, auth=(CLIENT["client_id"], CLIENT["client_secret"])).is_success


def test_revoking(box: Sandbox, http: httpx.Client) -> None:
    tokens = token_of(box, "MHARBOUR")
    other = token_of(box, "MLANTERN")
    assert box.post("merchants/MHARBOUR", {"do": "revoke"})["connected"] is False
    assert not works(box, tokens)
    assert refresh(http, tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert works(box, other, "MLANTERN")


def test_revoking_what_a_refresh_mends(box: Sandbox, http: httpx.Client) -> None:
    tokens = token_of(box, "MHARBOUR")
    box.post("merchants/MHARBOUR", {"do": "revoke_access"})
    assert not works(box, tokens)
    assert works(box, refresh(http, tokens["refresh_token"]).json())


def test_a_lost_answer_costs_the_refresh_token(box: Sandbox, http: httpx.Client) -> None:
    tokens = token_of(box, "MHARBOUR")
    box.faults("http_500", match={"path": "/token"}, times=1, after=True)
    assert http.post(
        "/token", data=CLIENT | {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    ).is_server_error
    assert refresh(http, tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert [call["provider"] for call in box.calls() if call["path"] == "/sumup/token"] == ["sumup"] * 2
