"""Where a payer may be sent back to: every form in which an address can pretend to be at a listed origin."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from domain.security import return_origins
from variables import ConfigError, Reader

LISTED = (
    "https://app.example.org",
    "https://shop.example.org:8443",
    "http://localhost:3000",
    "https://[2001:db8::1]",
)
GOOD = (
    "https://app.example.org",
    "https://app.example.org/",
    "https://app.example.org/payment/success?x=1&y=a%20b#part",
    "https://app.example.org:443/done",
    "HTTPS://APP.Example.ORG/done",
    "https://app.example.org?next=https://evil.example",
    "https://app.example.org/~me/@you:here;v=1,2/*/(x)",
    "https://shop.example.org:8443/done",
    "https://[2001:db8::1]/done",
    "http://localhost:3000/done",
)
HOSTILE = (
    "",
    "/done",
    "//app.example.org/done",
    "///app.example.org/done",
    "https:app.example.org/done",
    "https:/app.example.org/done",
    "https:///app.example.org/done",
    "https://",
    "https://evil.example/https://app.example.org",
    "https://evil.example/?https://app.example.org",
    "https://evil.example#https://app.example.org",
    "https://app.example.org.evil.example/",
    "https://evil-app.example.org/",
    "https://app.example.org.",
    "https://app.example.orgevil.example",
    "https://sub.app.example.org/",
    "https://example.org/",
    "https://app.example.org@evil.example/",
    "https://app.example.org:443@evil.example/",
    "https://user:password@app.example.org/",
    "https://@app.example.org/",
    "https://app.example.org\\@evil.example/",
    "https://evil.example\\@app.example.org/",
    "https:\\\\app.example.org/",
    "https://app.example.org\\.evil.example/",
    "https://app.example.org/\\evil.example",
    "https://evil.example\t.app.example.org/",
    "https://app.exa\nmple.org/",
    " https://app.example.org/",
    "https://app.example.org/ ",
    "https://app.example.org/a b",
    "https://app.example.org/\r\nSet-Cookie: a=b",
    "https://app.example.org/\x00",
    "https://app.example.org/\x7f",
    "https://app.example.org%2eevil.example/",
    "https://app.example.org%00.evil.example/",
    "https://app.example.org:8443/",
    "https://app.example.org:80/",
    "https://app.example.org:/",
    "https://app.example.org:99999/",
    "https://app.example.org:443:443/",
    "https://shop.example.org/",
    "http://app.example.org/",
    "http://app.example.org:443/",
    "http://localhost/",
    "http://localhost:3001/",
    "http://127.0.0.1:3000/",
    "http://localhost:3000@evil.example/",
    "http://0x7f.0.0.1:3000/",
    "javascript:alert(1)//app.example.org",
    "javascript://app.example.org/%0aalert(1)",
    "data:text/html,https://app.example.org",
    "ftp://app.example.org/",
    "https://\uff41pp.example.org/",
    "https://app\u3002example.org/",
    "https://app.example.org\u2044.evil.example/",
    "https://app.example.org/\u202egro.elpmaxe",
    "https://[2001:db8::2]/",
    "https://[2001:db8::1%25eth0]/",
    "https://[app.example.org]/",
    "https://app.example.org/<script>",
    'https://app.example.org/"onload="x',
    "https://app.example.org/" + "a" * 2000,
)


@pytest.mark.parametrize("url", GOOD)
def test_at_a_listed_origin(url: str) -> None:
    assert return_origins.allowed(url, LISTED, development=True)


@pytest.mark.parametrize("url", HOSTILE)
def test_hostile(url: str) -> None:
    assert not return_origins.allowed(url, LISTED, development=True)


def test_clear_text_is_for_developments_own_machine() -> None:
    assert not return_origins.allowed("http://localhost:3000/done", LISTED)
    # However it came into the list.
    assert not return_origins.allowed(
        "http://app.example.org/", ("http://app.example.org",), development=True
    )
    assert not return_origins.allowed("https://app.example.org/", ())


@pytest.mark.parametrize("url", GOOD)
def test_only_the_payments_id_is_added(url: str) -> None:
    sent = return_origins.with_payment(url, "payment_1f")
    before, after = urlsplit(url), urlsplit(sent)
    assert (before[:3], before.fragment) == (after[:3], after.fragment)
    assert parse_qsl(after.query) == [*parse_qsl(before.query), ("payment_id", "payment_1f")]
    assert return_origins.allowed(sent, LISTED, development=True)


@pytest.mark.parametrize(
    "url", ["https://a.example/?payment_id=forged&x=1", "https://a.example/?x=1&payment%5Fid=forged#f"]
)
def test_an_id_that_was_there_is_replaced(url: str) -> None:
    query = urlsplit(return_origins.with_payment(url, "payment_1f")).query
    assert parse_qsl(query) == [("x", "1"), ("payment_id", "payment_1f")]


def test_the_setting_is_read_into_what_browsers_send() -> None:
    read = Reader(
        {
            "O": "https://App.example.org:443/, https://b.example:8443\n http://localhost:3000".replace(
                "\n", ""
            )
        }
    )
    assert read.origins("O", development=True) == (
        "https://app.example.org",
        "https://b.example:8443",
        "http://localhost:3000",
    )
    assert Reader({}).origins("O", development=False) == ()


@pytest.mark.parametrize(
    "value",
    [
        *("*", "app.example.org", "http://app.example.org", "https://app.example.org/path", "null"),
        *(
            "https://*.example.org",
            "https://user@a.example",
            "https://a.example:0",
            "https://a.example:99999",
        ),
        *("https://a.example?x", "https://a.example#x", "https://", "ftp://a.example"),
    ],
)
def test_a_setting_that_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="API_RETURN_ORIGINS"):
        Reader({"API_RETURN_ORIGINS": value}).origins("API_RETURN_ORIGINS", development=True)


def test_production_lists_no_clear_text() -> None:
    with pytest.raises(ConfigError):
        Reader({"O": "http://localhost:3000"}).origins("O", development=False)
