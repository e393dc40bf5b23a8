"""The operator's logo for documents, which must hold their pictures inside.

`LOGO_URL` is a path of this site's static files or an address elsewhere. It is fetched at most once an hour;
a logo that cannot be had is left out, and the site's name stands in its place.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from time import monotonic

import httpx
import structlog

import config

logger = structlog.get_logger(__name__)

_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
}
_MOST_BYTES = 200_000
_KEEP_SECONDS = 3600


@dataclass
class _Kept:
    url: str = ""
    uri: str = ""
    until: float = 0.0


_kept = _Kept()


def data_uri() -> str:
    """The logo as a data: address, or an empty text."""
    url = config.get().logo_url
    if not url:
        return ""
    if _kept.url != url or _kept.until < monotonic():
        _kept.uri, _kept.url, _kept.until = _load(url), url, monotonic() + _KEEP_SECONDS
    return _kept.uri


def _load(url: str) -> str:
    content_type = next((kind for end, kind in _TYPES.items() if url.lower().split("?")[0].endswith(end)), "")
    try:
        data = _read(url)
    except (OSError, httpx.HTTPError) as error:
        logger.warning("logo_unreadable", url=url, error=type(error).__name__)
        return ""
    if not content_type or not 0 < len(data) <= _MOST_BYTES:
        logger.warning("logo_unusable", url=url, bytes=len(data), known_type=bool(content_type))
        return ""
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def _read(url: str) -> bytes:
    static = config.ROOT / "static"
    if url.startswith("/static/"):
        path = (static / url.removeprefix("/static/")).resolve()
        if not path.is_relative_to(static):
            raise FileNotFoundError(url)
        return path.read_bytes()
    return httpx.get(url, timeout=3, follow_redirects=True).raise_for_status().content
