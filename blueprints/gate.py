"""Before anything of a request is parsed: how large it may be, how much is in it, and whether it is text.

What a view may rely on: a body of at most 256 KB, or what `LARGER` says; at most 1,000 fields; JSON at most
32 deep; names and values that a database and a mail can hold: no NUL, no half characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Flask, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.routing import IntegerConverter

from domain.door import qr_reader
from domain.errors import DomainError
from domain.payments import statements

MOST_BYTES = 256 * 1024
MOST_FIELDS = 1000
MOST_DEPTH = 32
# A picture of 5 MB, and the rest of its form.
PICTURE_BYTES = 6 * 1024 * 1024
_BRACKETS = re.compile(rb"[\[\]{}]")
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
# What a decoder leaves where bytes were no text.
_UNDECODED = "\ufffd"

# The endpoints that take more than that.
LARGER = {
    "organiser.new_event": PICTURE_BYTES,
    "organiser.edit_event": PICTURE_BYTES,
    "records_events.create_view": PICTURE_BYTES,
    "records_events.edit_view": PICTURE_BYTES,
    # A little more than is read, so that the reader says what a statement, or a frame, may have.
    "admin.read_statement": 2 * statements.MOST_BYTES,
    "door.frame": 2 * qr_reader.MAX_BYTES,
}


class RowId(IntegerConverter):
    """`<int:...>` in a route: a number that a row can have. Anything else is no address of ours."""

    regex = "[0-9]{1,18}"


def register(app: Flask) -> None:
    """Hold the limits before each request. Blueprints are registered after this."""
    app.url_map.converters["int"] = RowId
    app.before_request(_hold)
    # Read by serving.py, which refuses by the header what is refused here, and while the body comes.
    app.extensions["body_limit"] = partial(_limit_at, app)


def _limit_at(app: Flask, method: str, path: str) -> int:
    """What a body for this method and path may have, in bytes."""
    try:
        endpoint, _ = app.url_map.bind("localhost").match(path, method)
    except HTTPException:
        return MOST_BYTES
    return LARGER.get(endpoint, MOST_BYTES)


def _hold() -> None:
    limit = LARGER.get(request.endpoint or "", MOST_BYTES)
    if (request.content_length or 0) > limit:
        raise RequestEntityTooLarge
    # Without a length, and for what lies inside a form of several parts, Werkzeug counts as it reads.
    request.max_content_length = limit
    request.max_form_memory_size = MOST_BYTES
    request.max_form_parts = MOST_FIELDS
    if "\0" in request.path or _UNDECODED in request.path:
        raise _unreadable()
    _hold_fields(request.query_string)
    if request.mimetype == "application/x-www-form-urlencoded":
        _hold_fields(request.get_data())
    elif request.mimetype == "multipart/form-data":
        _hold_parts()
    elif request.content_length or "Transfer-Encoding" in request.headers:
        _hold_json(request.get_data())


def _hold_fields(encoded: bytes) -> None:
    """Fields as addresses and simple forms carry them."""
    if encoded.count(b"&") >= MOST_FIELDS:
        raise RequestEntityTooLarge
    try:
        text = unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError as error:
        raise _unreadable() from error
    if "\0" in text:
        raise _unreadable()


def _hold_parts() -> None:
    for fields in (request.form, request.files):
        for name, value in fields.items(multi=True):
            text = name + (value if isinstance(value, str) else value.filename or "")
            if "\0" in text or _UNDECODED in text:
                raise _unreadable()


def _hold_json(body: bytes) -> None:
    """JSON, whatever its sender calls it; pictures and the like begin otherwise."""
    if not (request.is_json or body.lstrip()[:1] in (b"{", b"[")):
        return
    if _depth(body) > MOST_DEPTH:
        raise RequestEntityTooLarge
    try:
        body.decode()
        # Only an escape can bring in what the bytes do not show. What is no JSON at all, the view says.
        texts = "".join(_texts(json.loads(body))) if b"\\u" in body else ""
        texts.encode()
    except json.JSONDecodeError:
        return
    except ValueError as error:
        raise _unreadable() from error
    if b"\0" in body or "\0" in texts:
        raise _unreadable()


def _depth(body: bytes) -> int:
    if body.count(b"[") + body.count(b"{") <= MOST_DEPTH:
        return 0
    depth = deepest = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _unreadable() -> DomainError:
    return DomainError(
        "unreadable",
        "Some of what was sent is not text that can be kept. Go back, type it again, and send it once more.",
    )
