"""API keys, for who makes them by a program: the account's pages do the same."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from blueprints.api.caller import NEEDED, UNSET, caller
from blueprints.api.endpoint import MEMBERS, Area
from blueprints.api.errors import Problem
from blueprints.api.shapes import Answer, Body, Choice, Id, Moment, example
from domain.people import api_access
from domain.security import api_keys
from domain.security.scopes import Scope
from models import ApiKey

area = Area("keys", "API keys", "Keys for servers: each with its own permissions and an end date.")

_NO_KEY = Problem(404, "no_key", "There is no such API key.")


class NewKey(Body):
    """What a key is called, what it may do, and for how long."""

    model_config = example({"name": "Box office server", "scopes": ["tickets:check-in"], "days": 90})

    name: str = Field(min_length=1, max_length=api_keys.LONGEST_NAME)
    scopes: list[Choice[Scope]] = Field(min_length=1, max_length=len(Scope))
    days: int = Field(default=90, ge=1, le=api_keys.MOST_DAYS, description="Until it ends.")


class Key(Answer):
    """A key without its text, which is shown when it is made and never again."""

    key_id: Id = Field(examples=["key_0a1b2c3d4e5f60718293a4b5c6d7e8f9"])
    name: str = Field(examples=["Box office server"])
    prefix: str = Field(description="How its text begins.", examples=["kassa_7rq2m4xp"])
    scopes: list[Scope] = Field(examples=[["tickets:check-in"]])
    created_at: Moment
    expires_at: Moment
    last_used_at: Moment | None = Field(description="To the minute; null where it never was.")
    revoked_at: Moment | None = Field(examples=[None])


class MadeKey(Key):
    """A new key, with its text."""

    key: str = Field(
        description="Shown this once.",
        examples=["kassa_7rq2m4xp_9qF3v0dSx1bYk5mWc7TzR2nLh8PjU4eA6gKiQoBwXyM"],
    )


class Keys(Answer):
    """A member's keys, the newest first."""

    items: list[Key]


@area.get("/keys", scope=MEMBERS, answers=Keys)
def list_keys() -> Keys:
    """List your API keys."""
    return Keys(items=[Key(**_facts(key)) for key in api_keys.of(caller().user)])


@area.post(
    "/keys",
    scope=MEMBERS,
    answers={201: MadeKey},
    problems=(
        Problem(409, "too_many_keys", f"You have {api_keys.MOST_KEYS} keys already. Revoke one first."),
        Problem(400, "name_missing", "Give the key a name that says which server has it."),
        NEEDED,
        UNSET,
        Problem(400, "scope_unknown", "Your account may not do all of that itself. Choose from the list."),
    ),
    idempotent=False,
    limit="30 per hour",
)
def make_key(body: NewKey) -> tuple[MadeKey, int]:
    """Make an API key.

    Its text is in this answer and nowhere else. It may never do more than your account may at that moment.
    An account with a second factor needs a token from the last five minutes for this.
    """
    caller().check_proof()
    key, text = api_access.make_key(caller().user, body.name, body.scopes, body.days)
    return MadeKey(**_facts(key), key=text), 201


@area.post("/keys/<key_id>/revoke", scope=MEMBERS, answers=Key, problems=(_NO_KEY, NEEDED, UNSET))
def revoke_key(key_id: str) -> Key:
    """End an API key at once."""
    caller().check_proof()
    return Key(**_facts(api_keys.revoke(caller().user, key_id)))


def _facts(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.public_id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": [Scope(name) for name in key.scopes if name in set(Scope)],
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }
