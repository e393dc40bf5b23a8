"""Stylesheets and scripts: small, kept for a year, and new when they change. Pages are never compressed."""

from __future__ import annotations

import gzip
import re
from io import BytesIO
from pathlib import Path

import brotli
import pytest
from flask import Flask, url_for
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from blueprints import assets
from domain.catalogue import events
from tests.support.shop import make_event

PHONE = {"Accept-Encoding": "gzip, deflate, br, zstd"}
BOOTSTRAP = "/bootstrap/static/css/bootstrap.min.css"


def weight(answer: TestResponse) -> int:
    """Bytes of an answer, with its headers."""
    return len(answer.data) + sum(len(f"{name}: {value}\r\n") for name, value in answer.headers.items())


def photo() -> bytes:
    """A picture with more detail than any photo has."""
    noise = Image.effect_noise((600, 450), 60).resize((2400, 1800), Image.Resampling.BICUBIC)
    out = BytesIO()
    Image.merge("RGB", (noise, noise.rotate(180), noise)).save(out, "JPEG", quality=85)
    return out.getvalue()


def linked(page: str) -> set[str]:
    """What a browser fetches for a page."""
    found = re.findall(
        r'<(?:link rel="(?:icon|stylesheet)"[^>]*? href|script src|img[^>]*? src)="(/[^"]+)"', page
    )
    return {address.replace("&amp;", "&") for address in found}


def test_a_phone_s_first_visit_of_an_event(client: FlaskClient) -> None:
    event = make_event("show")
    events.set_picture(event, photo())
    page = client.get("/events/show", headers=PHONE)
    parts = {address: client.get(address, headers=PHONE) for address in linked(page.text)}
    assert len(parts) >= 5 and any("/pictures/" in address for address in parts)
    assert {answer.status_code for answer in parts.values()} == {200}
    assert weight(page) + sum(map(weight, parts.values())) < 110_000
    # The second visit asks for the page alone, also when it has another cookie by then.
    assert all("immutable" in answer.headers["Cache-Control"] for answer in parts.values())
    assert not any("Cookie" in answer.headers.get("Vary", "") for answer in parts.values())
    assert "Cookie" in page.headers["Vary"]


@pytest.mark.parametrize("path", ["/", "/account/login", "/events/show", "/nothing"])
def test_a_page_is_not_compressed(client: FlaskClient, path: str) -> None:
    make_event("show")
    assert "Content-Encoding" not in client.get(path, headers=PHONE).headers


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("br, gzip", "br"), ("gzip", "gzip"), ("br;q=0, gzip;q=0.5", "gzip"), ("identity", None), ("", None)],
)
def test_each_browser_gets_what_it_can_read(client: FlaskClient, accepted: str, encoding: str | None) -> None:
    answer = client.get(BOOTSTRAP, headers={"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == encoding
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.content_type == "text/css; charset=utf-8"
    read = {"br": brotli.decompress, "gzip": gzip.decompress, None: bytes}[encoding]
    assert read(answer.data).startswith(b"@charset") and int(answer.headers["Content-Length"]) == len(
        answer.data
    )
    assert encoding is None or len(answer.data) < 32_000


def test_only_the_right_version_is_kept(app: Flask, client: FlaskClient) -> None:
    with app.test_request_context():
        address = url_for("static", filename="css/kassa.css")
    assert "immutable" in client.get(address).headers["Cache-Control"]
    for other in ("/static/css/kassa.css", "/static/css/kassa.css?v=0123456789abcdef"):
        answer = client.get(other)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "public, max-age=300")
        again = client.get(other, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")


def test_a_file_that_changes_gets_another_address(tmp_path: Path) -> None:
    path = tmp_path / "a.css"
    path.write_text("a{}")
    found = assets.Assets({("static", "a.css"): path})
    before = found.get("static", "a.css")
    assert before is not None and found.get("static", "a.css") is before
    path.write_text("a{color:red}")
    after = found.get("static", "a.css")
    assert after is not None and after.version != before.version
    assert found.get("static", "../a.css") is None


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/none.css", "/static/", "/bootstrap/static/x"])
def test_nothing_else_is_served(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_what_no_page_names_comes_as_it_is(client: FlaskClient) -> None:
    answer = client.get("/bootstrap/static/js/bootstrap.min.js", headers=PHONE)
    assert answer.status_code == 200 and "Content-Encoding" not in answer.headers
