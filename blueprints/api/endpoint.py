"""What an endpoint is: who may, what comes in, what goes out, what may be wrong; and how a request passes it.

The order is the same everywhere: the network's limit, the credential and its limit, the member behind it
and what they may do, the name of the request where it has one, the body, then the endpoint's function. The
library (spectree) makes the document of what is declared here; it is not asked while a request is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final, TypeVar, get_type_hints

from flask import Blueprint, Response, g, request
from pydantic import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from blueprints.api import caller, limits, repeating, wire
from blueprints.api.errors import ApiProblem, Problem
from blueprints.api.shapes import Answer, Body, Query, say
from blueprints.visitor import API
from domain.security.scopes import Scope

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Everybody:
    """Who may use an endpoint that asks nobody who they are."""


@dataclass(frozen=True)
class Members:
    """Who may use an endpoint that is for any member's own program, and for no key."""


PUBLIC: Final = Everybody()
MEMBERS: Final = Members()


@dataclass(frozen=True)
class Binary:
    """An answer that is no JSON, such as a picture: the function gives a Response."""

    content_type: str


Shape = type[Answer] | Binary | None
_UNSET: Final = "unset"


@dataclass(frozen=True)
class Endpoint:
    """One method of one address, as it was declared."""

    method: str
    rule: str
    function: Callable[..., Any]
    area: Area
    who: Scope | Everybody | Members
    answers: Mapping[int, Shape]
    problems: tuple[Problem, ...]
    idempotent: bool
    secrets: Mapping[str, Callable[[dict[str, Any]], Any]]
    count: tuple[Callable[[], None], ...]
    raw: bool
    body: type[Body] | None = None
    query: type[Query] | None = None

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def path(self) -> str:
        """The address as a document writes it: /payments/status/{participant_id}."""
        return API + self.rule.replace("<", "{").replace(">", "}")


@dataclass(eq=False)
class Area:
    """Endpoints that belong together: a chapter of the document."""

    tag: str
    title: str
    words: str
    endpoints: list[Endpoint] = field(default_factory=list)

    def get(self, rule: str, **declared: Any) -> Callable[[Function], Function]:
        return self._endpoint("GET", rule, **declared)

    def post(self, rule: str, **declared: Any) -> Callable[[Function], Function]:
        return self._endpoint("POST", rule, **declared)

    def put(self, rule: str, **declared: Any) -> Callable[[Function], Function]:
        return self._endpoint("PUT", rule, **declared)

    def patch(self, rule: str, **declared: Any) -> Callable[[Function], Function]:
        return self._endpoint("PATCH", rule, **declared)

    def delete(self, rule: str, **declared: Any) -> Callable[[Function], Function]:
        return self._endpoint("DELETE", rule, **declared)

    def _endpoint(
        self,
        method: str,
        rule: str,
        *,
        scope: Scope | Everybody | Members,
        answers: type[Answer] | Mapping[int, Shape],
        problems: tuple[Problem, ...] = (),
        idempotent: bool = True,
        secrets: Mapping[str, Callable[[dict[str, Any]], Any]] | None = None,
        limit: str | None = _UNSET,
        raw: bool = False,
    ) -> Callable[[Function], Function]:
        """Declare the function below as an endpoint. Its docstring is the document's.

        `scope`: what a token or key must let its program do; MEMBERS: any member's token, no key; PUBLIC.
        `answers`: what is answered, by status. `problems`: what may be wrong, beside what may everywhere.
        `idempotent`: whether a POST takes an Idempotency-Key. `secrets`: fields of the answer that are
        never stored, and how each is found again from the rest. `limit`: one of its own beside the general
        ones; None, for a provider's rings: no limit at all. `raw`: the body is the function's to read.
        """

        def declare(function: Function) -> Function:
            hints = get_type_hints(function)
            is_open = isinstance(scope, Everybody)
            self.endpoints.append(
                Endpoint(
                    method=method,
                    rule=rule,
                    function=function,
                    area=self,
                    who=scope,
                    answers=answers if isinstance(answers, Mapping) else {200: answers},
                    problems=problems,
                    idempotent=idempotent and method == "POST" and not is_open and not raw,
                    secrets=secrets or {},
                    count=_counts(function.__name__, limit, is_open=is_open),
                    raw=raw,
                    body=hints.get("body"),
                    query=hints.get("query"),
                )
            )
            return function

        return declare


def _counts(name: str, limit: str | None, *, is_open: bool) -> tuple[Callable[[], None], ...]:
    if limit is None:
        return ()
    general = limits.count_open if is_open else limits.count_caller
    own = () if limit == _UNSET else (limits.policy(name.replace("_", "-"), limit, limits.by_caller),)
    return (general, *own)


# --- A request's way ------------------------------------------------------------------------------------


def add(bp: Blueprint, endpoint: Endpoint, documented: Callable[..., Any]) -> None:
    """Route an endpoint. `documented` is what the library knows it by."""

    @wraps(documented)
    def view(**path: str) -> BaseResponse:
        return _serve(endpoint, path)

    bp.add_url_rule(endpoint.rule, endpoint.name, view, methods=[endpoint.method])


def _serve(endpoint: Endpoint, path: dict[str, str]) -> BaseResponse:
    g.api_problems = endpoint.problems
    if not isinstance(endpoint.who, Everybody):
        _let_in(endpoint)
    else:
        for count in endpoint.count:
            count()
    if endpoint.idempotent and repeating.HEADER in request.headers:
        return repeating.once(
            caller.caller().name, endpoint.secrets, endpoint.problems, lambda: _answer(endpoint, path)
        )
    return _answer(endpoint, path)


def _let_in(endpoint: Endpoint) -> None:
    limits.count_network()
    found = caller.credential()
    g.api_counted = found.counted
    for count in endpoint.count:
        count()
    who = caller.enter(found, endpoint.who if isinstance(endpoint.who, Scope) else None)
    if isinstance(endpoint.who, Members) and who.key is not None:
        raise ApiProblem(403, "members_only", "This is for a member's own token; an API key may not do it.")


def _answer(endpoint: Endpoint, path: dict[str, str]) -> BaseResponse:
    given: dict[str, Any] = dict(path)
    if endpoint.query is not None:
        given["query"] = _query(endpoint.query)
    if endpoint.body is not None:
        given["body"] = _body(endpoint.body)
    return written(endpoint.function(**given), endpoint.answers)


def _query(shape: type[Query]) -> Query:
    sent = request.args.to_dict()
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:
        raise ApiProblem(400, "invalid", f"{twice[0][:100]} is in the address twice.")
    try:
        return shape.model_validate(sent)
    except ValidationError as error:
        raise ApiProblem(400, "invalid", say(error)) from error


def _body(shape: type[Body]) -> Body:
    if request.mimetype != wire.JSON:
        raise ApiProblem(
            400, "not_json", "Send the body as JSON, with the header Content-Type: application/json."
        )
    try:
        return shape.model_validate(wire.read(request.get_data()))
    except wire.Unreadable as error:
        raise ApiProblem(400, "not_json", str(error)) from error
    except ValidationError as error:
        raise ApiProblem(400, "invalid", say(error)) from error


def written(made: Any, answers: Mapping[int, Shape]) -> BaseResponse:
    """What an endpoint's function gave, as a response: an answer, one with a status, or a whole response."""
    answer, status = made if isinstance(made, tuple) else (made, next(iter(answers)))
    if isinstance(answer, BaseResponse):
        return answer
    if answer is None:
        return Response(status=status)
    return Response(wire.write(answer.model_dump()), status, content_type=wire.JSON)
