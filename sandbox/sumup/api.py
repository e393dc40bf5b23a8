"""SumUp's API over HTTP: who asks, for what, and how it is answered or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint, Response, request

from sandbox.edge import Edge
from sandbox.faults import Fault, Faults
from sandbox.sumup import objects, shapes
from sandbox.sumup.access import Access, Identity
from sandbox.sumup.books import Checkout, Event, Impossible, Transaction, new_id
from sandbox.sumup.history import listed
from sandbox.sumup.merchants import Merchant
from sandbox.sumup.money import minor
from sandbox.sumup.shapes import Flaw, Shape
from sandbox.sumup.wire import JSON, PROBLEM_JSON, ApiError, forbidden, invalid, legacy, problem
from sandbox.sumup.world import World

Body = dict[str, Any]

# How many checkouts a list without a reference gives.
MOST_LISTED = 100
_NOT_FOUND = ("NOT_FOUND", "Resource not found")


@dataclass(frozen=True)
class Asked:
    """A request that may be answered: who asks, and its parameters, checked."""

    who: Identity
    given: Body


@dataclass(frozen=True)
class Answer:
    """A status and a body on their way to the wire; no body for None."""

    status: int
    body: Any


@dataclass(frozen=True)
class Route:
    """A method and path, the shape of its parameters, the scopes of which one is needed, who answers."""

    method: str
    path: re.Pattern[str]
    shape: Shape
    scopes: tuple[str, ...]
    handler: Callable[..., Answer]
    # The form in which a wrong bearer is refused there.
    refusal: str


def _route(
    method: str,
    path: str,
    shape: Shape,
    scopes: tuple[str, ...],
    handler: Callable[..., Answer],
    refusal: str = JSON,
) -> Route:
    return Route(method, re.compile(f"^{path}$"), shape, scopes, handler, refusal)


class SumupApi:
    """Answers requests: bearer, route, scope, parameters, work."""

    def __init__(self, world: World, access: Access, public_url: str, faults: Faults) -> None:
        self.world = world
        self.access = access
        self.public_url = public_url
        self._faults = faults
        one, of = "([^/]+)", "/merchants/([^/]+)"
        pay, see, profile = (
            ("payments",),
            ("transactions.history",),
            ("user.profile", "user.profile_readonly"),
        )
        self._routes = [
            _route("POST", "/v0.1/checkouts", shapes.CREATE_CHECKOUT, pay, self.create),
            _route("GET", "/v0.1/checkouts", shapes.LIST_CHECKOUTS, pay, self.list),
            _route("GET", f"/v0.1/checkouts/{one}", shapes.NOTHING, pay, self.get),
            _route("PATCH", f"/v0.1/checkouts/{one}", shapes.UPDATE_CHECKOUT, pay, self.update),
            _route("DELETE", f"/v0.1/checkouts/{one}", shapes.NOTHING, pay, self.deactivate),
            _route(
                "POST", f"/v1.0{of}/payments/{one}/refunds", shapes.REFUND, pay, self.refund, PROBLEM_JSON
            ),
            _route("GET", f"/v2.1{of}/transactions", shapes.GET_TRANSACTION, see, self.transaction),
            _route("GET", f"/v2.1{of}/transactions/history", shapes.LIST_TRANSACTIONS, see, self.history),
            _route("GET", "/v0.1/me", shapes.NOTHING, profile, self.me),
            _route(
                "GET", "/v0.1/memberships", shapes.LIST_MEMBERSHIPS, profile, self.memberships, PROBLEM_JSON
            ),
            _route("GET", f"/v1{of}", shapes.NOTHING, profile, self.merchant, PROBLEM_JSON),
        ]

    # The way of every request

    def answer(self, fault: Fault | None) -> Response:
        """Answer the current request. `fault` is what happens to it inside SumUp."""
        if fault is not None and fault.kind == "slow":
            self._faults.wait(fault.seconds)
        try:
            with self.world.ready():
                answer = self._worked()
                if fault is not None and fault.kind == "http_500" and fault.stored:
                    raise problem(500, "An unexpected error occurred.")
            if fault is not None and fault.kind == "http_500":
                raise problem(500, "An unexpected error occurred.")
        except ApiError as error:
            return response(error.status, error.body, error.content_type)
        return response(answer.status, answer.body)

    def _worked(self) -> Answer:
        path = request.path.removeprefix("/sumup")
        found = [(r, m) for r in self._routes if r.method == request.method and (m := r.path.match(path))]
        if not found:
            raise problem(404, f"The sandbox does not imitate {request.method} {path}.")
        route, match = found[0]
        who = self._identity(route.refusal)
        if not who.may(*route.scopes):
            raise self._not_allowed(route)
        return route.handler(Asked(who, _parameters(route)), *match.groups())

    def _identity(self, form: str) -> Identity:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        who = self.access.identity(given.strip()) if scheme.lower() == "bearer" else None
        if who is None:
            raise problem(401, "Unauthorized.", form)
        return who

    def _not_allowed(self, route: Route) -> ApiError:
        if route.handler == self.create:
            return forbidden("checkout_payments_not_allowed")
        return problem(403, f"The token lacks the scope {' or '.join(route.scopes)}.", route.refusal)

    # Checkouts

    def create(self, asked: Asked) -> Answer:
        given = asked.given
        if given["merchant_code"] != asked.who.merchant:
            raise forbidden("checkout_payments_not_allowed")
        amount = _amount(given["amount"], given["currency"])
        more = {name: given[name] for name in _KEPT if name in given}
        checkout = Checkout(
            id=new_id(),
            merchant=asked.who.merchant,
            reference=given["checkout_reference"],
            amount_minor=amount,
            currency=given["currency"],
            status="PENDING",
            created=self.world.now(),
            valid_until=self._end(given),
            more=more,
        )
        try:
            self.world.open(checkout)
        except Impossible as error:
            raise legacy(409, "DUPLICATED_CHECKOUT", str(error)) from error
        return Answer(201, objects.checkout(checkout, (), self.public_url))

    def list(self, asked: Asked) -> Answer:
        where, values = "merchant = ?", [asked.who.merchant]
        if "checkout_reference" in asked.given:
            where, values = f"{where} AND reference = ?", [*values, asked.given["checkout_reference"]]
        found = self.world.checkouts(MOST_LISTED, where, values)
        return Answer(200, [self._shown(checkout) for checkout in found])

    def get(self, asked: Asked, checkout_id: str) -> Answer:
        return Answer(200, self._shown(self._own(asked, checkout_id)))

    def update(self, asked: Asked, checkout_id: str) -> Answer:
        checkout, given = self._own(asked, checkout_id), asked.given
        self._require_open(checkout)
        currency = given.get("currency", checkout.currency)
        if "amount" in given:
            checkout.amount_minor = _amount(given["amount"], currency)
        checkout.currency = currency
        checkout.more |= {name: given[name] for name in ("description", "customer_id") if name in given}
        if "valid_until" in given:
            checkout.valid_until = self._end(given)
        try:
            self.world.rename(checkout, given.get("checkout_reference", checkout.reference))
        except Impossible as error:
            raise legacy(409, "DUPLICATED_CHECKOUT", str(error)) from error
        self.world.save(checkout)
        return Answer(200, self._bare(checkout))

    def deactivate(self, asked: Asked, checkout_id: str) -> Answer:
        checkout = self._own(asked, checkout_id)
        self._require_open(checkout)
        self.world.deactivate(checkout)
        return Answer(200, self._bare(checkout))

    def _require_open(self, checkout: Checkout) -> None:
        if checkout.status not in ("PENDING", "FAILED"):
            raise legacy(409, "CHECKOUT_PROCESSED", "Checkout is already processed")

    def _own(self, asked: Asked, checkout_id: str) -> Checkout:
        checkout = self.world.checkout(checkout_id)
        if checkout is None or checkout.merchant != asked.who.merchant:
            raise legacy(404, *_NOT_FOUND)
        return checkout

    def _end(self, given: Body) -> float | None:
        end = shapes.moment(given.get("valid_until"))
        if end is None:
            return None
        if end.timestamp() <= self.world.now():
            raise invalid([Flaw("valid_until", "INVALID", "valid_until must be in the future")])
        return end.timestamp()

    def _bare(self, checkout: Checkout) -> Body:
        return objects.checkout(checkout, self._attempts(checkout), self.public_url)

    def _shown(self, checkout: Checkout) -> Body:
        return objects.checkout_success(
            checkout, self._attempts(checkout), self.public_url, self._merchant(checkout.merchant)
        )

    def _attempts(self, checkout: Checkout) -> Sequence[Transaction]:
        return [self._seen(each)[0] for each in self.world.transactions(checkout.id)]

    def _seen(self, transaction: Transaction) -> tuple[Transaction, Sequence[Event]]:
        """A transaction and its events as they show: what went back may be slow (`refund_shows_after`)."""
        until = self.world.now() - self.access.options()["refund_shows_after"]
        events = [e for e in self.world.events(transaction.id) if e.type != "REFUND" or e.created <= until]
        if transaction.status == "REFUNDED" and not any(e.type == "REFUND" for e in events):
            return replace(transaction, status="SUCCESSFUL"), events
        return transaction, events

    # Transactions

    def refund(self, asked: Asked, code: str, transaction_id: str) -> Answer:
        options = self.access.options()
        older = options["refund_status"] == 204
        transaction = self.world.transaction("id", transaction_id)
        if transaction is None or transaction.merchant != code or code != asked.who.merchant:
            detail = "The requested resource doesn't exist or does not belong to you."
            raise legacy(404, *_NOT_FOUND) if older else problem(404, detail)
        amount = None
        if "amount" in asked.given:
            amount = minor(asked.given["amount"], transaction.currency)
            if not amount or amount < 0:
                raise problem(400, f"amount must be a positive amount in {transaction.currency}.")
        if options["refund_outcome"] == "processor":
            raise problem(422, "The refund could not be processed by the payment processor.")
        if options["refund_outcome"] == "no_balance":
            message = "Not enough available balance to perform the operation at the moment"
            raise legacy(409, "NOT_ENOUGH_BALANCE", message) if older else problem(409, message)
        try:
            self.world.refund(transaction, amount)
        except Impossible as error:
            raise legacy(409, "CONFLICT", str(error)) if older else problem(409, str(error)) from error
        return Answer(204, None) if older else Answer(201, {})

    def transaction(self, asked: Asked, code: str) -> Answer:
        columns = {"id": "id", "transaction_code": "code"}
        if len(asked.given) != 1:
            raise legacy(400, "INVALID", "Exactly one of id, transaction_code, ... is required")
        ((name, value),) = asked.given.items()
        found = self.world.transaction(columns[name], value) if name in columns else None
        if found is None or found.merchant != code or code != asked.who.merchant:
            raise legacy(404, *_NOT_FOUND)
        merchant = self._merchant(code)
        shown, events = self._seen(found)
        of = self._checkout_of(shown)
        return Answer(200, objects.transaction_full(shown, of, events, merchant, self.public_url))

    def history(self, asked: Asked, code: str) -> Answer:
        if code != asked.who.merchant:
            raise problem(403, "The merchant is not yours.", JSON)
        page, links = listed(self.world, code, asked.given)
        merchant = self._merchant(code)
        items = [
            objects.history_item(t, self._checkout_of(t), events, merchant)
            for t, events in map(self._seen, page)
        ]
        return Answer(200, {"items": items, "links": links})

    def _checkout_of(self, transaction: Transaction) -> Checkout:
        checkout = self.world.checkout(transaction.checkout)
        assert checkout is not None, "a transaction has a checkout"
        return checkout

    # Merchants

    def me(self, asked: Asked) -> Answer:
        return Answer(200, objects.me(self._merchant(asked.who.merchant)))

    def memberships(self, asked: Asked) -> Answer:
        given, merchant = asked.given, self._merchant(asked.who.merchant)
        if given.get("limit", 10) > 25:
            raise problem(400, "limit must be at most 25.")
        kind = given.get("kind", given.get("resource.type", "merchant"))
        member = kind == "merchant" and given.get("status", "accepted") == "accepted"
        member = member and given.get("resource.name", merchant.name) == merchant.name
        return Answer(200, objects.memberships(merchant, shown=member and not given.get("offset")))

    def merchant(self, asked: Asked, code: str) -> Answer:
        if code != asked.who.merchant:
            raise problem(404, "The requested resource doesn't exist or does not belong to you.")
        return Answer(200, objects.merchant(self._merchant(code)))

    def _merchant(self, code: str) -> Merchant:
        merchant = self.world.merchant(code)
        assert merchant is not None, "whoever has a token is a merchant"
        return merchant


_KEPT = ("description", "return_url", "redirect_url", "customer_id", "purpose", "hosted_checkout")


def _parameters(route: Route) -> Body:
    """The query of a GET, the JSON of the others, checked. Raises ApiError."""
    if request.method in ("GET", "DELETE"):
        given: Any = _query(route.shape)
    else:
        given = request.get_json(force=True, silent=True) if request.get_data() else {}
    found = shapes.flaws(given, route.shape)
    if found and route.refusal == PROBLEM_JSON:
        raise problem(400, found[0].message)
    if found and route.shape is shapes.LIST_TRANSACTIONS:
        raise legacy(400, "INVALID", "Validation error")
    if found:
        raise invalid(found)
    checked: Body = given
    return checked


def _query(shape: Shape) -> Body:
    """The query with numbers and lists where the shape has them."""
    given: Body = {}
    for name, values in request.args.lists():
        kind = shape[name].kind if name in shape else "string"
        number = kind == "integer" and re.fullmatch(r"[0-9]{1,6}", values[0])
        given[name] = values if kind == "list" else int(values[0]) if number else values[0]
    return given


def _amount(amount: float, currency: str) -> int:
    found = minor(amount, currency)
    if found is None or not 0 < found < 10**11:
        raise invalid([Flaw("amount", "INVALID", f"amount must be a positive amount in {currency}")])
    return found


def response(status: int, body: Any, content_type: str = JSON) -> Response:
    """An answer as it travels."""
    text = "" if body is None else json.dumps(body)
    return Response(text, status, content_type=content_type)


def refused(status: int) -> Response:
    """SumUp's own 403, 429 or 500."""
    words = {403: "You do not have the right to do this.", 429: "Too many requests."}
    error = problem(status, words.get(status, "An unexpected error occurred."))
    return response(error.status, error.body, error.content_type)


def blueprint(api: SumupApi, edge: Callable[[Callable[[int], Response]], Edge]) -> Blueprint:
    """Everything under /sumup/v<number>."""
    routes = Blueprint("sumup_api", __name__, url_prefix="/sumup")
    served = edge(refused)

    @routes.route("/v<version>/", defaults={"rest": ""}, methods=["GET", "POST", "DELETE", "PUT", "PATCH"])
    @routes.route("/v<version>/<path:rest>", methods=["GET", "POST", "DELETE", "PUT", "PATCH"])
    def call(version: str, rest: str) -> Response:
        return served.serve(api.answer)

    return routes
