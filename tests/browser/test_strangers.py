"""The shop as it is deployed, while strangers hold its door: silent, slow, or with too much."""

from __future__ import annotations

import http.client
import re
import time
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from bench.strangers import Crowd, crowd

# Beside the others that look at this shop, in one process: a shop that opens takes seconds.
pytestmark = pytest.mark.xdist_group("browser")
# More of each slow kind than the web process has threads.
WHO = Crowd(silent=150, headers=12, bodies=12, readers=12, seconds=0)


def ask(shop: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    headers = {} if body is None else {"Content-Type": "application/x-www-form-urlencoded"}
    with closing(http.client.HTTPConnection("localhost", urlsplit(shop).port, timeout=20)) as browser:
        browser.request("GET" if body is None else "POST", path, body, headers)
        answer = browser.getresponse()
        return answer.status, answer.read().decode()


def test_the_shop_goes_on_while_strangers_hold_its_door(workshop: str) -> None:
    shop, form = ask(workshop, "/")[1], "/tickets/find"
    event = re.search(r'href="(/events/[^"]+)"', shop)
    assert event is not None
    with crowd(urlsplit(workshop).port or 0, WHO, form=form, file=event[1]):
        for path in ("/livez", event[1]) * 10:
            began = time.monotonic()
            assert ask(workshop, path)[0] == 200
            # Far less than any of them may take; generous to a machine that does other things, too.
            assert time.monotonic() - began < 5


@pytest.mark.parametrize("size", [300_000, 7_000_000])
def test_too_much_is_refused_in_words(workshop: str, size: int) -> None:
    """The words arrive, though the browser sends all of it before it looks at the answer."""
    status, page = ask(workshop, "/account/register", b"a" * size)
    assert status == 413
    assert "more than this address takes" in page
