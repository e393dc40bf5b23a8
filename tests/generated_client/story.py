"""Make the client with openapi-python-client, and go with it from the login to the refund.

Whatever the generator does not understand is an error here. Only paying is done at the sandbox, as a buyer
does it at the bank.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

PACKAGE = "kassa_client"
_PATIENCE = 60.0


class Client:
    """The generated package; `call("payments", "initiate", ...)` is its function of that name."""

    def __init__(self, web: str, token: str = "") -> None:
        made: Any = importlib.import_module(PACKAGE)
        self.models: Any = importlib.import_module(f"{PACKAGE}.models")
        self._client = made.AuthenticatedClient(base_url=web, token=token) if token else made.Client(web)

    def call(self, area: str, name: str, **given: Any) -> Any:
        """What is answered, as the generated model of it; a refusal raises AssertionError."""
        answer = importlib.import_module(f"{PACKAGE}.api.{area}.{name}").sync(client=self._client, **given)
        assert answer is not None and not isinstance(answer, self.models.Error), f"{name}: {answer}"
        return answer


@contextmanager
def generated(web: str, folder: Path) -> Iterator[None]:
    """The package, made of the document at `web` into `folder`, while it can be imported."""
    config = folder / "generator.json"
    # Nothing of it is read by anybody, so it need not be made pretty.
    config.write_text(json.dumps({"package_name_override": PACKAGE, "post_hooks": []}))
    command = [
        sys.executable,
        "-m",
        "openapi_python_client",
        "generate",
        "--url",
        f"{web}/api/v1/openapi.json",
    ]
    command += ["--meta", "none", "--fail-on-warning", "--config", str(config)]
    command += ["--output-path", str(folder / PACKAGE)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


def log_in(web: str, email: str, password: str) -> Client:
    nobody = Client(web)
    body = nobody.models.Login(email=email, password=password)
    return Client(web, nobody.call("auth", "log_in", body=body).access_token)


def live(web: str, sandbox: str, tournament: str, *, member: str, admin: str, password: str) -> list[str]:
    """Enter, pay by Kaspi, look, give back, with the generated functions alone; what was seen, in order."""
    me, boss = log_in(web, member, password), log_in(web, admin, password)
    category = _category(me, tournament)
    entry = _enter(me, category)
    asked = me.models.Initiate(
        participant_id=entry.participant_id,
        method=me.models.Method.KASPI_QR,
        amount=entry.amount,
        currency=entry.currency,
    )
    name = f"client-{entry.participant_id}"
    started = me.call("payments", "initiate", body=asked, idempotency_key=name)
    again = me.call("payments", "initiate", body=asked, idempotency_key=name)
    assert again.to_dict() == started.to_dict()
    seen = [str(started.status), f"{category.places_left - _category(me, tournament).places_left} held"]
    _pay(sandbox, started.payment_url.rpartition("/")[2])
    seen += [_status(me, entry, "COMPLETED"), _state(me, entry)]
    history = me.call("payments", "payment_history", participant_id=entry.participant_id)
    seen.append(f"history {[str(one.status) for one in history.items]}")
    body = boss.models.GiveBack(reason="Injured before the tournament")
    given = boss.call("admin", "refund_payment", payment_id=started.payment_id, body=body)
    if given.refund_state == "created":
        made = boss.models.MadeByHand(
            reference=f"QR{datetime.now(UTC):%y%m%d%H%M%S}", note="In the bank's app"
        )
        given = boss.call("admin", "record_refund", payment_id=started.payment_id, body=made)
    seen += [f"refund {given.refund_state}", _status(me, entry, "REFUNDED"), _state(me, entry)]
    left = category.places_left - _category(me, tournament).places_left
    return [*seen, f"{left} held"]


def _category(me: Client, tournament: str) -> Any:
    """The tournament's first category that Kaspi can be paid for."""
    found = me.call("tournaments", "list_categories", slug=tournament).items
    return next(one for one in found if "kaspi_qr" in one.methods)


def _enter(me: Client, category: Any) -> Any:
    """Enter a new athlete of the right age, who is under age, so that a guardian agrees."""
    this_year = datetime.now(UTC).year
    born = datetime(this_year - 15, 1, 1, tzinfo=UTC).date()
    body = me.models.NewAthlete(name="Client Made", birth_date=born, weight_kg="52.5", grade=-3)
    athlete = me.call("athletes", "add_athlete", body=body)
    assert (athlete.weight_kg, athlete.grade, athlete.birth_date) == (52.5, -3, born)
    consent = me.call("athletes", "get_consent").text_hash
    body = me.models.Enter(category_id=category.category_id, athlete_id=athlete.athlete_id, consent=consent)
    return me.call("participants", "enter", body=body)


def _pay(sandbox: str, provider_id: str) -> None:
    url = f"{sandbox}/control/payments/{provider_id}"
    requests.post(url, json={"do": "pay"}, timeout=_PATIENCE).raise_for_status()


def _status(me: Client, entry: Any, wanted: str) -> str:
    """The status of the entry's payment, once it is the one that is waited for: it is asked seldom."""
    ends = time.monotonic() + _PATIENCE
    while True:
        told = str(me.call("payments", "payment_status", participant_id=entry.participant_id).status)
        if told == wanted or time.monotonic() > ends:
            return told
        time.sleep(0.5)


def _state(me: Client, entry: Any) -> str:
    return str(me.call("participants", "get_participant", participant_id=entry.participant_id).status)


EXPECTED = [
    *("PENDING", "1 held", "COMPLETED", "PAID", "history ['COMPLETED']"),
    *("refund succeeded", "REFUNDED", "WITHDRAWN", "0 held"),
]
