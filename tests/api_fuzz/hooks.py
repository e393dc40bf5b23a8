"""What Schemathesis is told of this API, loaded by it (SCHEMATHESIS_HOOKS).

It makes requests of the document alone, and follows the document's links. Random ids reach nothing, so most
of the requests that are meant to be right get ids that an answer has told before; and whoever began a payment
sometimes pays it, for behind an answer stands a buyer. What is meant to be wrong stays as it is.
"""

from __future__ import annotations

import atexit
import json
import os
import random
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import requests
import schemathesis
from schemathesis import AuthContext, Case, CheckContext, HookContext, Response

_SETTINGS: dict[str, Any] = json.loads(os.environ["KASSA_API_FUZZ"])
_WEB, _SANDBOX = _SETTINGS["web"], _SETTINGS["sandbox"]
_DICE = random.Random(_SETTINGS["seed"])
_SECONDS = 60
# How often a request that is meant to be right is about something that there is.
_OFTEN = 0.85
_KEY = "Idempotency-Key"
_LOGIN_GOOD = 300
# Fields of answers that another request takes up under the same name.
_DOORBELLS = ("stripe", "sumup", "kaspi")
_IDS = ("athlete_id", "category_id", "participant_id", "payment_id", "slug", "refresh_token", "text_hash")
# What an answer calls otherwise than the request that takes it up.
_ALSO = {"slug": ("event",), "tournament": ("event",), "ticket_codes": ("code",), "next": ("cursor",)}
_MOST_KNOWN = 60
_FRESH_AFTER = 80


class _Known:
    """What answers have told so far: by a field's name, the values that came last."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = defaultdict(list)
        # participant_id -> what it costs.
        self.fees: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, Counter[int]] = defaultdict(Counter)
        self.codes: dict[str, Counter[str]] = defaultdict(Counter)
        self.requests = 0
        self.lock = Lock()
        # What no answer tells.
        self.values["provider"] = list(_DOORBELLS)
        self.values["agent"] = list(_SETTINGS["agents"])
        self.values["email"], self.values["password"] = [_SETTINGS["member"]], [_SETTINGS["password"]]

    def learn(self, told: Any) -> None:
        """Take in an answer, and whatever is within it."""
        if isinstance(told, list):
            for each in told:
                self.learn(each)
        elif isinstance(told, dict):
            for name, value in told.items():
                self._keep(name, value)
                self.learn(value)
            if {"participant_id", "amount", "currency"} <= told.keys() and told["participant_id"]:
                fee = {name: told[name] for name in ("amount", "currency")}
                self.fees.setdefault(told["participant_id"], fee)

    def _keep(self, name: str, value: Any) -> None:
        values = value if name == "ticket_codes" else [value]
        for each in values if isinstance(values, list) else []:
            for to in {name} & set(_IDS) | set(_ALSO.get(name, ())) if isinstance(each, str) else ():
                kept = self.values[to]
                kept.append(each)
                del kept[:-_MOST_KNOWN]

    def begins_anew(self) -> bool:
        """Whether it is time for new entries: those that were there get paid, withdrawn and given back."""
        self.requests += 1
        return self.requests % _FRESH_AFTER == 1

    def one(self, name: str) -> Any:
        """A value for a field of that name, more often a new one; None where nothing was told yet."""
        found = self.values.get(name)
        return found[-1 - int(len(found) * _DICE.random() ** 2)] if found else None


_known = _Known()


# --- Who calls ------------------------------------------------------------------------------------------


@schemathesis.auth(refresh_interval=_LOGIN_GOOD, cache_by_key=lambda case, _: _who(case))
class Callers:
    """An admin where only admins may; else a member by a token, or by a key as often."""

    def get(self, case: Case[Any], _: AuthContext) -> str:
        who = _who(case)
        return self.get_token(who) if who != "key" else self._key(self.get_token("member"))

    def set(self, case: Case[Any], data: str, _: AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"

    def _key(self, token: str) -> str:
        """A new key; those that the attack has made leave no room for it otherwise."""
        for key in _ask("GET", "/keys", token)["items"]:
            if not key["revoked_at"]:
                _ask("POST", f"/keys/{key['key_id']}/revoke", token)
        body = {"name": "Schemathesis", "scopes": _SETTINGS["scopes"], "days": 1}
        return str(_ask("POST", "/keys", token, body)["key"])

    def get_token(self, who: str) -> str:
        login = {"email": _SETTINGS[who], "password": _SETTINGS["password"]}
        return str(_ask("POST", "/auth/token", "", login)["access_token"])


def _who(case: Case[Any]) -> str:
    security = case.operation.definition.raw.get("security", [])
    scopes = [scope for way in security for scope in way.get("key", [])]
    if any(scope.startswith(("admin:", "tickets:")) for scope in scopes):
        return "admin"
    return "key" if scopes and case.id.lower() < "i" else "member"


def _ask(method: str, path: str, token: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{_WEB}/api/v1{path}"
    answer = requests.request(method, url, json=body, headers=headers, timeout=_SECONDS)
    answer.raise_for_status()
    return answer.json()


# --- What is sent ---------------------------------------------------------------------------------------


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Much of what is meant to be right is about something that there is, and is a request of its own."""
    if case.meta is not None and case.meta.generation.mode.is_negative:
        return
    with _known.lock:
        if _known.begins_anew():
            _begin()
        if case.path_parameters:
            _use(case.path_parameters)
        if _KEY in case.headers and _DICE.random() < 0.8:
            case.headers[_KEY] = f"fuzz-{_DICE.getrandbits(64):x}"
        if isinstance(case.body, dict):
            _use(case.body)
            fee = _known.fees.get(str(case.body.get("participant_id")))
            if fee is not None and "method" in case.body and _DICE.random() < _OFTEN:
                case.body |= fee
                case.body.pop("return_url", None)
            elif case.body.keys() & {"agent", "reason"} and _DICE.random() < _OFTEN:
                case.body.pop("amount", None)


def _begin() -> None:
    """What a member has before they pay: athletes of some ages, entered where they may be."""
    token = Callers().get_token("member")
    _known.learn(_ask("GET", "/tournaments", ""))
    for slug in set(_known.values["slug"]):
        _known.learn(_ask("GET", f"/tournaments/{slug}/categories", ""))
    consent = _ask("GET", "/consent", token)
    _known.learn(consent)
    this_year = datetime.now(UTC).year
    # In the end there are as many athletes as an account may have, and places are taken.
    with suppress(requests.HTTPError):
        for years in (9, 15, 30):
            born = f"{this_year - years}-01-01"
            athlete = _ask(
                "POST", "/athletes", token, {"name": f"Fuzz {_DICE.getrandbits(32):x}", "birth_date": born}
            )
            _known.learn(athlete)
            for category in sorted(set(_known.values["category_id"])):
                _enter(token, athlete["athlete_id"], category, consent["text_hash"])


def _enter(token: str, athlete: str, category: str, consent: str) -> None:
    body = {"athlete_id": athlete, "category_id": category, "consent": consent}
    with suppress(requests.HTTPError):
        _known.learn(_ask("POST", "/participants", token, body))


def _use(fields: dict[str, Any]) -> None:
    for name in fields:
        told = _known.one(name)
        if told is not None and fields[name] not in _known.values[name] and _DICE.random() < _OFTEN:
            fields[name] = told


# --- What came back -------------------------------------------------------------------------------------


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Remember what was told; and the buyer does something at the bank."""
    if context.operation is None or case.method != context.operation.method.upper():
        return
    name = context.operation.definition.raw["operationId"]
    told = _read(response)
    with _known.lock:
        _known.seen[name][response.status_code] += 1
        if isinstance(told, dict) and "code" in told and response.status_code >= 400:
            _known.codes[name][str(told["code"])] += 1
        if response.status_code < 300:
            _known.learn(told)
        pays = _DICE.random()
    if name == "initiate" and response.status_code < 300 and _SANDBOX:
        _at_the_bank(told, pays)


def _at_the_bank(started: dict[str, Any], dice: float) -> None:
    """Pay, decline or do nothing where the payment can be found by its address."""
    do = "pay" if dice < 0.4 else "decline" if dice < 0.5 else ""
    payments = requests.get(f"{_SANDBOX}/control/payments", params={"limit": 5}, timeout=_SECONDS).json()
    url = started["payment_url"] or ""
    found = [each for each in payments if url and (each["hosted_url"] == url or url.endswith(each["id"]))]
    if do and (found or started["client_secret"]):
        at = f"{_SANDBOX}/control/payments/{(found or payments)[0]['id']}"
        requests.post(at, json={"do": do}, timeout=_SECONDS)


def _read(response: Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


@schemathesis.check
def every_refusal_is_documented(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """What is wrong is in the one shape, and its code among the document's examples of that status."""
    if response.status_code < 400 or response.status_code == 405:
        return
    told = _read(response)
    assert isinstance(told, dict), "A refusal is a JSON object."
    assert {"detail", "status_code", "code"} <= told.keys(), f"A refusal has its three fields: {told}"
    assert told["status_code"] == response.status_code
    assert _is_documented(case, response.status_code, told["code"]), (
        f"{told['code']} is not among the document's examples of {response.status_code}: {told['detail']}"
    )


def _is_documented(case: Case[Any], status: int, code: str) -> bool:
    answer = case.operation.definition.raw["responses"].get(str(status), {})
    return code in answer.get("content", {}).get("application/json", {}).get("examples", {})


@schemathesis.hook
def filter_failure(context: HookContext, failure: Any, case: Case[Any], response: Response) -> bool:
    """What fits the schema may be refused by a rule of its own code, for a schema cannot say every rule.

    "invalid" is no such code but for what lies between two fields (a currency's decimals), what a currency
    is, and how a number is written: 60.0 is no whole number here, and 5e1 no amount.
    """
    told = _read(response)
    if type(failure).__name__ != "RejectedPositiveData" or not isinstance(told, dict):
        return True
    if told.get("code") != "invalid":
        return not _is_documented(case, response.status_code, str(told.get("code")))
    return not any(words in str(told.get("detail")) for words in _SCHEMAS_CANNOT_SAY)


_SCHEMAS_CANNOT_SAY = (
    "is not a currency that people pay with",
    "digits after the point",
    "must be a whole number",
    "must be an amount such as",
    "must be a day such as",
)


@atexit.register
def _tell() -> None:
    seen = {name: dict(counted) for name, counted in _known.seen.items()}
    codes = {name: dict(counted) for name, counted in _known.codes.items()}
    Path(_SETTINGS["seen"]).write_text(json.dumps({"seen": seen, "codes": codes}))
