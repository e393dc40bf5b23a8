"""Second factors in tests: an app that counts codes, a printed sheet, a key that answers as browsers do."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import cbor2
import pyotp
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import config
from domain import clock
from domain.people import factors
from domain.security import second_factors
from models import User

PROVE = "/account/second-factor/prove"


class Time:
    """The time, which a test moves."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._real, self.ahead = clock.now, timedelta()
        patch.setattr(clock, "now", self.now)

    def now(self) -> datetime:
        return self._real() + self.ahead

    def move(self, **how_far: float) -> None:
        self.ahead += timedelta(**how_far)


@dataclass
class App:
    """A member's phone and paper."""

    secret: str
    sheet: list[str] = field(default_factory=list)

    @property
    def code(self) -> str:
        return pyotp.TOTP(self.secret).at(clock.now())


def set_up(user: User) -> App:
    """A second factor that counts. The code of this half minute is used up."""
    second_factors.begin_app(user)
    new = second_factors.new_app(user)
    assert new is not None
    app = App(new.secret)
    second_factors.try_new_app(user, app.code)
    app.sheet = second_factors.print_codes(user)
    factors.finish(user, app.sheet[0])
    return app


def answer(client: FlaskClient, page: TestResponse, code: str) -> TestResponse:
    """Type a code into the page that asks, and go on as a browser does: a 307 sends the same form again."""
    form = page.text[page.text.index(f'action="{PROVE}"') :]
    fields: dict[str, list[str]] = {"second_factor_code": [code]}
    for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form):
        fields.setdefault(name, []).append(unescape(value))
    led = client.post(PROVE, data=fields)
    if led.status_code == 307:
        led = client.post(led.location, data=fields)
    return client.get(led.location) if led.status_code == 303 else led


class SoftKey:
    """A passkey in software: it signs what a browser has it sign."""

    def __init__(self, origin: str = "") -> None:
        self.id = sha256(str(id(self)).encode()).digest()
        self.count = 0
        self.origin = origin or config.get().public_url
        self._key = ec.generate_private_key(ec.SECP256R1())

    def make(self, options: str) -> str:
        """The answer to the question for a new passkey."""
        public = self._key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: public.x.to_bytes(32, "big"), -3: public.y.to_bytes(32, "big")}
        known = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cbor2.dumps(cose)
        attested = {"fmt": "none", "attStmt": {}, "authData": self._data(0x45) + known}
        client = self._client(options, "webauthn.create")
        return self._answer(clientDataJSON=client, attestationObject=cbor2.dumps(attested))

    def show(self, options: str) -> str:
        """The answer to the question for this passkey."""
        self.count += 1
        data, client = self._data(0x05), self._client(options, "webauthn.get")
        signed = self._key.sign(data + sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return self._answer(clientDataJSON=client, authenticatorData=data, signature=signed)

    def _data(self, flags: int) -> bytes:
        host = urlsplit(self.origin).hostname or ""
        return sha256(host.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big")

    def _client(self, options: str, kind: str) -> bytes:
        asked = {"type": kind, "challenge": json.loads(options)["challenge"], "origin": self.origin}
        return json.dumps(asked).encode()

    def _answer(self, **response: bytes) -> str:
        told: dict[str, Any] = {"id": _text(self.id), "rawId": _text(self.id), "type": "public-key"}
        told["response"] = {name: _text(value) for name, value in response.items()}
        return json.dumps(told | {"clientExtensionResults": {}})


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")
