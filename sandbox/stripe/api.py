"""Stripe's API over HTTP: who asks, in which version, under which key, for what."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request
from stripe import params as types
from stripe.params import checkout as checkout_types

from sandbox import ids
from sandbox.edge import Edge
from sandbox.faults import Fault, Faults
from sandbox.store import Stored
from sandbox.stripe import account, checkout, domains, gate, intents, lists, objects
from sandbox.stripe.books import (
    BALANCE,
    CHARGE,
    DISPUTE,
    EVENT,
    INTENT,
    REFUND,
    SESSION,
    Impossible,
    request_key,
)
from sandbox.stripe.cards import BAD, GOOD, Card
from sandbox.stripe.params import check
from sandbox.stripe.wire import ApiError, Tree, missing
from sandbox.stripe.world import World
from sandbox.webhooks import ENABLED_EVENTS, Webhooks

Body = dict[str, Any]
# How long an idempotency key is remembered, by the sandbox's clock.
KEY_SECONDS = 24 * 60 * 60
_TEST_METHODS = {
    "pm_card_visa": GOOD,
    "pm_card_mastercard": "5555555555554444",
    "pm_card_chargeDeclined": BAD,
    "pm_card_authenticationRequired": "4000002500003155",
}


@dataclass(frozen=True)
class Answer:
    """A status and a body on their way to the wire."""

    status: int
    body: Body


@dataclass(frozen=True)
class Route:
    """A method and path of the API, the SDK's type of its parameters, and the method that answers."""

    method: str
    path: re.Pattern[str]
    shape: type
    handler: Callable[..., Body | Answer]


class StripeApi:
    """Answers requests. One lock-step: bearer, version, key, parameters, work, answer kept under the key."""

    def __init__(self, world: World, webhooks: Webhooks, public_url: str, faults: Faults) -> None:
        self.world = world
        self.webhooks = webhooks
        self.public_url = public_url
        self._faults = faults
        self._in_flight: set[str] = set()
        self._in_flight_lock = threading.Lock()
        self._routes = [
            Route(m, re.compile(f"^/v1/{p}$"), shape, handler) for m, p, shape, handler in self._table()
        ]

    def _table(self) -> list[tuple[str, str, type, Callable[..., Body | Answer]]]:
        t, c = types, checkout_types
        sessions, one = "checkout/sessions", "([^/]+)"
        return [
            ("POST", sessions, c.SessionCreateParams, self.create_session),
            ("GET", sessions, c.SessionListParams, self.list_sessions),
            ("GET", f"{sessions}/{one}", c.SessionRetrieveParams, self.retrieve(SESSION, "session")),
            ("POST", f"{sessions}/{one}/expire", c.SessionExpireParams, self.expire_session),
            ("GET", f"{sessions}/{one}/line_items", c.SessionListLineItemsParams, self.list_line_items),
            ("POST", "payment_intents", t.PaymentIntentCreateParams, self.create_intent),
            ("GET", "payment_intents", t.PaymentIntentListParams, self.list_of(INTENT, "payment_intents")),
            ("GET", f"payment_intents/{one}", t.PaymentIntentRetrieveParams, self.retrieve(INTENT, "intent")),
            ("POST", f"payment_intents/{one}/confirm", t.PaymentIntentConfirmParams, self.confirm_intent),
            ("POST", f"payment_intents/{one}/cancel", t.PaymentIntentCancelParams, self.cancel_intent),
            ("GET", "charges", t.ChargeListParams, self.list_of(CHARGE, "charges", "payment_intent")),
            ("GET", f"charges/{one}", t.ChargeRetrieveParams, self.retrieve(CHARGE)),
            ("POST", "refunds", t.RefundCreateParams, self.create_refund),
            (
                "GET",
                "refunds",
                t.RefundListParams,
                self.list_of(REFUND, "refunds", "payment_intent", "charge"),
            ),
            ("GET", f"refunds/{one}", t.RefundRetrieveParams, self.retrieve(REFUND)),
            ("POST", f"refunds/{one}/cancel", t.RefundCancelParams, self.cancel_refund),
            (
                "GET",
                "disputes",
                t.DisputeListParams,
                self.list_of(DISPUTE, "disputes", "payment_intent", "charge"),
            ),
            ("GET", f"disputes/{one}", t.DisputeRetrieveParams, self.retrieve(DISPUTE)),
            ("GET", "events", t.EventListParams, self.list_events),
            ("GET", f"events/{one}", t.EventRetrieveParams, self.retrieve(EVENT)),
            ("GET", "account", t.AccountRetrieveCurrentParams, self.account),
            ("GET", "balance_transactions", t.BalanceTransactionListParams, self.list_balance),
            (
                "GET",
                f"balance_transactions/{one}",
                t.BalanceTransactionRetrieveParams,
                self.retrieve(BALANCE),
            ),
            ("GET", "webhook_endpoints", t.WebhookEndpointListParams, self.list_endpoints),
            *domains.table(self.world),
        ]

    # The way of every request

    def answer(self, fault: Fault | None) -> Response:
        """Answer the current request. `fault` is what happens to it inside Stripe."""
        replayed = False
        try:
            gate.check_bearer()
            gate.check_version()
            tree = gate.read_parameters()
            key = gate.idempotency_key()
            if key is None:
                self._dawdle(fault)
                with self.world.ready():
                    answer = self._worked(tree, fault)
            else:
                answer, replayed = self._once(key, tree, fault)
        except ApiError as error:
            answer = Answer(error.status, error.body)
        return _response(answer, replayed)

    def _dawdle(self, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "slow":
            self._faults.wait(fault.seconds)

    def _once(self, key: str, tree: Tree, fault: Fault | None) -> tuple[Answer, bool]:
        """The work under an idempotency key, or its first answer again."""
        with self._in_flight_lock:
            if key in self._in_flight:
                raise ApiError(
                    f"There is currently another in-progress request using this Idempotency Key: {key}. "
                    "Please try again later.",
                    status=409,
                    type="idempotency_error",
                    code="idempotency_key_in_use",
                )
            self._in_flight.add(key)
        try:
            self._dawdle(fault)
            with self.world.ready():
                kept = self._kept(key, tree)
                if kept is not None:
                    return kept, True
                answer = self._work_under(key, tree, fault)
                return answer, False
        finally:
            with self._in_flight_lock:
                self._in_flight.discard(key)

    def _work_under(self, key: str, tree: Tree, fault: Fault | None) -> Answer:
        token = request_key.set(key)
        try:
            answer = self._worked(tree, fault)
        except ApiError as error:
            if not error.kept:
                raise
            answer = Answer(error.status, error.body)
        finally:
            request_key.reset(token)
        self.world.store.execute(
            "INSERT OR REPLACE INTO answers (key, fingerprint, status, body, created) VALUES (?,?,?,?,?)",
            (key, gate.fingerprint(tree), answer.status, json.dumps(answer.body), self.world.clock.now()),
        )
        return answer

    def _worked(self, tree: Tree, fault: Fault | None) -> Answer:
        """The work; or a 500 in its place, or after it."""
        if fault is None or fault.kind != "http_500":
            return self._work(tree)
        if fault.after:
            self._work(tree)
        return refusal_answer(500)

    def _kept(self, key: str, tree: Tree) -> Answer | None:
        row = self.world.store.execute("SELECT * FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None or row["created"] + KEY_SECONDS < self.world.clock.now():
            return None
        if row["fingerprint"] != gate.fingerprint(tree):
            raise ApiError(
                "Keys for idempotent requests can only be used with the same parameters they were first used "
                f"with. Try using a key other than '{key}' if you meant to execute a different request.",
                type="idempotency_error",
            )
        return Answer(row["status"], json.loads(row["body"]))

    def _work(self, tree: Tree) -> Answer:
        """Find the route, check the parameters, do it. A refusal undoes what was begun."""
        path = request.path.removeprefix("/stripe")
        for route in self._routes:
            match = route.path.match(path)
            if match and route.method == request.method:
                params = check(tree, route.shape)
                try:
                    result = self._undone_if_refused(route.handler, params, match.groups())
                except Impossible as error:
                    raise ApiError(str(error), code=error.code, param=error.param) from error
                return result if isinstance(result, Answer) else Answer(200, result)
        raise ApiError(
            f"Unrecognized request URL ({request.method}: {path}). "
            "The sandbox imitates only a part of Stripe's API.",
            status=404,
            kept=False,
        )

    def _undone_if_refused(
        self, handler: Callable[..., Body | Answer], params: Body, path_ids: tuple[str, ...]
    ) -> Body | Answer:
        execute = self.world.store.execute
        execute("SAVEPOINT work")
        try:
            result = handler(params, *path_ids)
        except (ApiError, Impossible):
            execute("ROLLBACK TO work")
            raise
        finally:
            execute("RELEASE work")
        return result

    # Reading

    def retrieve(self, kind: str, param: str = "id") -> Callable[..., Body]:
        """A handler that answers one object of a kind."""

        def handler(params: Body, object_id: str) -> Body:
            return self._shown(self.world.get(kind, object_id, param).body, params)

        return handler

    def list_of(self, kind: str, path: str, *columns: str) -> Callable[..., Body]:
        """A handler that answers a list of a kind, filtered by `columns` of the store."""

        def handler(params: Body) -> Body:
            filters = [(f"{name} = ?", params[name]) for name in columns if name in params]
            # Nobody is a customer here, and nothing is transferred: those filters find nothing.
            filters += [
                ("? IS NULL", params[name])
                for name in ("customer", "customer_account", "transfer_group")
                if name in params
            ]
            return lists.page(self.world, kind, f"/v1/{path}", params, filters)

        return handler

    def list_sessions(self, params: Body) -> Body:
        filters: list[tuple[str, Any]] = [
            (f"{name} = ?", params[name]) for name in ("payment_intent", "status") if name in params
        ]
        if "customer_details" in params:
            filters.append(
                ("json_extract(body, '$.customer_details.email') = ?", params["customer_details"]["email"])
            )
        elsewhere = ("customer", "customer_account", "payment_link", "subscription")
        filters += [("? IS NULL", params[name]) for name in elsewhere if name in params]
        return lists.page(self.world, SESSION, "/v1/checkout/sessions", params, filters)

    def list_line_items(self, params: Body, session_id: str) -> Body:
        lines = self.world.get(SESSION, session_id, "session").inner["lines"]
        positions = {line["id"]: position for position, line in enumerate(lines)}
        limit = lists.page_size(params)
        start = 0
        if "starting_after" in params:
            if params["starting_after"] not in positions:
                raise missing("line_item", params["starting_after"], "starting_after")
            start = positions[params["starting_after"]] + 1
        if "ending_before" in params:
            raise checkout.not_imitated("ending_before")
        url = f"/v1/checkout/sessions/{session_id}/line_items"
        return {
            "object": "list",
            "data": lines[start : start + limit],
            "has_more": start + limit < len(lines),
            "url": url,
        }

    def list_events(self, params: Body) -> Body:
        wanted = params.get("types") or ([params["type"]] if "type" in params else [])
        filters: list[tuple[str, Any]] = []
        if wanted:
            # The store keeps an event's type as its status.
            filters.append(("status IN (SELECT value FROM json_each(?))", json.dumps(wanted)))
        if "delivery_success" in params:
            condition = "id IN (SELECT event_id FROM deliveries WHERE state = 'delivered') = ?"
            filters.append((condition, int(params["delivery_success"])))
        return lists.page(self.world, EVENT, "/v1/events", params, filters)

    def list_balance(self, params: Body) -> Body:
        filters = [
            (f"json_extract(body, '$.{name}') = ?", params[name])
            for name in ("currency", "source", "type")
            if name in params
        ]
        return lists.page(self.world, BALANCE, "/v1/balance_transactions", params, filters)

    def list_endpoints(self, params: Body) -> Body:
        url = self.webhooks.url
        data = [account.webhook_endpoint(url, list(ENABLED_EVENTS))] if url else []
        return {"object": "list", "data": data, "has_more": False, "url": "/v1/webhook_endpoints"}

    def account(self, params: Body) -> Body:
        return account.account()

    def _shown(self, body: Body, params: Body) -> Body:
        lists.expand_in(self.world, [body], params.get("expand", []))
        return body

    # Writing

    def create_session(self, params: Body) -> Body:
        return self._shown(checkout.create(self.world, params, self.public_url), params)

    def expire_session(self, params: Body, session_id: str) -> Body:
        session = self.world.get(SESSION, session_id, "session")
        return self._shown(self.world.expire(session).body, params)

    def create_intent(self, params: Body) -> Body:
        return self._shown(self.world.open_intent(intents.values(params), {}).body, params)

    def confirm_intent(self, params: Body, intent_id: str) -> Body | Answer:
        intent = self.world.get(INTENT, intent_id, "intent")
        if intent.inner.get("session"):
            raise ApiError("You cannot confirm a PaymentIntent that a Checkout Session made.")
        for name in params.keys() - {"payment_method", "return_url", "expand"}:
            raise checkout.not_imitated(name)
        wanted = params.get("payment_method", "pm_card_visa")
        if wanted not in _TEST_METHODS:
            raise missing("PaymentMethod", wanted, "payment_method")
        decline = self.world.pay_intent(intent, Card(_TEST_METHODS[wanted]))
        if decline is None:
            return self._shown(intent.body, params)
        error = ApiError(
            decline.message,
            status=402,
            type="card_error",
            code=decline.code,
            decline_code=decline.decline_code,
            payment_intent=intent.body,
        )
        return Answer(402, error.body)

    def cancel_intent(self, params: Body, intent_id: str) -> Body:
        intent = self.world.get(INTENT, intent_id, "intent")
        return self._shown(self.world.cancel_intent(intent, params.get("cancellation_reason")).body, params)

    def create_refund(self, params: Body) -> Body:
        for name in params.keys() - {"amount", "charge", "payment_intent", "reason", "metadata", "expand"}:
            raise checkout.not_imitated(name)
        charge = self._charge_to_refund(params)
        values = {
            "reason": params.get("reason"),
            "metadata": checkout.check_metadata(params.get("metadata"), "metadata"),
        }
        return self._shown(self.world.refund(charge, params.get("amount"), values).body, params)

    def _charge_to_refund(self, params: Body) -> Stored:
        if ("charge" in params) == ("payment_intent" in params):
            raise ApiError(
                "One of the following params should be provided for this request: payment_intent or charge."
            )
        if "charge" in params:
            return self.world.get(CHARGE, params["charge"], "charge")
        intent = self.world.get(INTENT, params["payment_intent"], "payment_intent")
        if intent.body["latest_charge"] is None:
            raise ApiError(f"The PaymentIntent {intent.id} does not have a successful charge to refund.")
        return self.world.get(CHARGE, intent.body["latest_charge"])

    def cancel_refund(self, params: Body, refund_id: str) -> Body:
        refund = self.world.get(REFUND, refund_id)
        raise ApiError(
            "You cannot cancel this refund: only one in requires_action can be, and it is "
            f"{refund.body['status']}."
        )


def refusal_answer(status: int) -> Answer:
    """Stripe's own 403, 429 or 500."""
    if status == 403:
        words = "The provided key 'rk_test_***' does not have the required permissions for this endpoint."
        error = ApiError(words, status=403, code="more_permissions_required")
    elif status == 429:
        error = ApiError("Request rate limit exceeded.", status=429, code="rate_limit")
    else:
        error = ApiError("An unknown error occurred.", status=500, type="api_error")
    return Answer(status, error.body)


def _response(answer: Answer, replayed: bool = False) -> Response:
    response = Response(json.dumps(answer.body), answer.status, content_type="application/json")
    response.headers["Request-Id"] = ids.new("req", 14)
    response.headers["Stripe-Version"] = objects.API_VERSION
    key = request.headers.get("Idempotency-Key")
    if key and request.method == "POST":
        response.headers["Idempotency-Key"] = key
        response.headers["Original-Request"] = response.headers["Request-Id"]
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def blueprint(api: StripeApi, edge: Callable[[Callable[[int], Response]], Edge]) -> Blueprint:
    """Everything under /stripe/v1."""
    routes = Blueprint("stripe_api", __name__, url_prefix="/stripe")
    served = edge(lambda status: _response(refusal_answer(status)))

    @routes.route("/v1/", defaults={"rest": ""}, methods=["GET", "POST", "DELETE", "PUT", "PATCH"])
    @routes.route("/v1/<path:rest>", methods=["GET", "POST", "DELETE", "PUT", "PATCH"])
    def call(rest: str) -> Response:
        return served.serve(api.answer)

    return routes
