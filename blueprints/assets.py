"""Stylesheets and scripts: compressed once, named by their content, and kept by browsers for a year.

Each address carries `v`, a digest of the file, so a new version is a new address and no browser needs to ask
again. The files are compressed in memory as they are first asked for: production writes nothing to its disk.
Pages are never compressed, for they carry tokens beside what a visitor typed (BREACH).
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import brotli
from flask import Flask, Response, request
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from itsdangerous import URLSafeTimedSerializer
from werkzeug.wrappers import Response as BaseResponse

from extensions import OF_BEFORE

# Bootstrap's wheel brings a hundred files; this is the one that our pages name.
_OF_BOOTSTRAP = ("css/bootstrap.min.css",)
_YEAR = "public, max-age=31536000, immutable"
# For whoever asks without a version, or with another one: a page of before or after a deploy.
_SHORT = "public, max-age=300"
# 24 ms for Bootstrap's 232 KB. The last step of quality saves another 3 KB, and takes 290 ms.
_BROTLI_QUALITY = 9


@dataclass(frozen=True)
class Asset:
    """One file as it is served."""

    kind: str
    content: bytes
    changed: int

    @property
    def is_text(self) -> bool:
        return self.kind.startswith("text/") or self.kind in ("image/svg+xml", "application/javascript")

    @cached_property
    def version(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:16]

    @cached_property
    def brotli(self) -> bytes:
        return bytes(brotli.compress(self.content, quality=_BROTLI_QUALITY))

    @cached_property
    def gzip(self) -> bytes:
        return gzip.compress(self.content, 9, mtime=0)


class Assets:
    """The files of an application, read when they are first named, and again when they have changed."""

    def __init__(self, paths: dict[tuple[str, str], Path]) -> None:
        self._paths = paths
        self._read: dict[Path, Asset] = {}

    def get(self, endpoint: str, name: str) -> Asset | None:
        """The file of this name; None for what only Flask's own view knows."""
        path = self._paths.get((endpoint, name))
        if path is None:
            return None
        changed = path.stat().st_mtime_ns
        asset = self._read.get(path)
        if asset is None or asset.changed != changed:
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            asset = self._read[path] = Asset(kind, path.read_bytes(), changed)
        return asset


class Sessions(SecureCookieSessionInterface):
    """Flask's sessions, signed with SHA-256, which are no part of what everybody may keep.

    Flask-Login looks into the session after each request, and `Vary: Cookie` would make browsers fetch all
    files again whenever a cookie changes.
    """

    digest_method = staticmethod(hashlib.sha256)  # type: ignore[assignment]

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        made = super().get_signing_serializer(app)
        if made is not None:
            # What was signed before, with SHA-1, is read; the next answer signs it anew.
            made.fallback_signers = [{"key_derivation": self.key_derivation, **OF_BEFORE}]
        return made

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if session.modified or not response.cache_control.public:
            super().save_session(app, session, response)


def register(app: Flask) -> None:
    """Take over the views that serve our files, and name a version in each of their addresses."""
    assets = Assets(dict(_files(app)))

    def name_version(endpoint: str, values: dict[str, Any]) -> None:
        asset = assets.get(endpoint, values.get("filename", ""))
        if asset is not None:
            values.setdefault("v", asset.version)

    app.url_default_functions.setdefault(None, []).append(name_version)
    app.session_interface = Sessions()
    for endpoint in ("static", "bootstrap.static"):
        app.view_functions[endpoint] = _view(assets, endpoint, app.view_functions[endpoint])


def _files(app: Flask) -> Iterator[tuple[tuple[str, str], Path]]:
    ours = Path(app.static_folder or "")
    for path in ours.rglob("*"):
        if path.is_file():
            yield ("static", path.relative_to(ours).as_posix()), path
    wheel = Path(app.blueprints["bootstrap"].static_folder or "")
    for name in _OF_BOOTSTRAP:
        yield ("bootstrap.static", name), wheel / name


def _view(assets: Assets, endpoint: str, flasks_own: Callable[..., Any]) -> Callable[..., BaseResponse]:
    def serve(filename: str) -> BaseResponse:
        asset = assets.get(endpoint, filename)
        served: BaseResponse = _served(asset) if asset is not None else flasks_own(filename=filename)
        return served

    return serve


def _served(asset: Asset) -> BaseResponse:
    encoding = _encoding() if asset.is_text else ""
    content = {"br": lambda: asset.brotli, "gzip": lambda: asset.gzip, "": lambda: asset.content}[encoding]()
    response = Response(content, content_type=asset.kind + ("; charset=utf-8" if asset.is_text else ""))
    if encoding:
        response.headers["Content-Encoding"] = encoding
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = _YEAR if request.args.get("v") == asset.version else _SHORT
    response.set_etag(f"{asset.version}{encoding}")
    return response.make_conditional(request)


def _encoding() -> str:
    """The best of what the browser takes: br (over https alone), gzip, or none."""
    accepted = request.accept_encodings
    return next((name for name in ("br", "gzip") if accepted.quality(name) > 0), "")
