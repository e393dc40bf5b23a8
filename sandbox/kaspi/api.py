"""Kaspi's QR API over HTTP: who asks, in which form of it, for what, and how it is answered or refused."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from flask import Blueprint, Response, request

from sandbox import settings
from sandbox.edge import Edge
from sandbox.faults import Fault, Faults
from sandbox.kaspi.books import (
    CONFIRM_SECONDS,
    POLL_SECONDS,
    PROCESSED,
    SCAN_SECONDS,
    TRADE_POINTS,
    Impossible,
    Payment,
)
from sandbox.kaspi.wire import (
    DEVICE_ELSEWHERE,
    NO_CERTIFICATE,
    NO_DEVICE,
    NO_PAYMENT,
    NO_TRADE_POINT,
    NOT_RETURNABLE,
    Refusal,
    at_the_gate,
    good,
    refused,
    tenge,
    tiyn,
)
from sandbox.kaspi.world import World

Body = dict[str, Any]
_ALMATY = timezone(timedelta(hours=5))
_METHODS = ["Gold", "Red", "Loan"]


@dataclass(frozen=True)
class Asked:
    """A request of somebody who may ask: in which form of the API, and what was sent."""

    form: str
    given: Body

    @property
    def device(self) -> str:
        return str(self.given.get("DeviceToken", ""))


@dataclass(frozen=True)
class Route:
    """A method and path, the forms that have it, who answers, and whether r3 wants the BIN with it."""

    method: str
    path: re.Pattern[str]
    forms: tuple[str, ...]
    handler: Callable[..., Any]
    bin_too: bool = False


def _route(
    method: str, path: str, forms: str, handler: Callable[..., Any], *, bin_too: bool = False
) -> Route:
    return Route(method, re.compile(f"^{path}$"), tuple(forms.split()), handler, bin_too)


class Gate(Exception):
    """What does not get as far as the API: an HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class KaspiApi:
    """Answers requests: the right to ask, the route, the device, the work."""

    def __init__(self, world: World, public_url: str, faults: Faults) -> None:
        self.world = world
        self._public_url = public_url
        self._faults = faults
        every, one = "r1 r2 r3", "([^/]+)"
        self._routes = [
            _route("GET", "v01/partner/tradepoints", "r1 r2", self.trade_points),
            _route("GET", f"v01/partner/tradepoints/{one}", "r3", self.trade_points),
            _route("POST", "v01/device/register", every, self.register, bin_too=True),
            _route("POST", "v01/device/delete", every, self.remove, bin_too=True),
            _route("POST", "v01/qr/create", every, self.create, bin_too=True),
            _route("POST", "v01/qr/create-link", every, self.create_link, bin_too=True),
            _route("GET", f"v0[12]/payment/status/{one}", every, self.status),
            _route("GET", "v01/payment/details", "r2 r3", self.details),
            _route("POST", "v01/payment/return", "r2 r3", self.give_back, bin_too=True),
            _route("POST", "v01/return/create", "r2", self.return_code),
            _route("GET", f"v01/return/status/{one}", "r2", self.return_status),
            _route("POST", "v01/return/operations", "r2", self.operations),
            _route("GET", "v01/health/ping", every, self.ping),
            _route("POST", "v01/test/payment/(scan|confirm|scanerror|confirmerror)", every, self.emulate),
        ]

    # The way of every request

    def answer(self, fault: Fault | None) -> Response:
        """Answer the current request. `fault` is what happens to it inside Kaspi."""
        if fault is not None and fault.kind == "slow":
            self._faults.wait(fault.seconds)
        try:
            with self.world.ready():
                data = self._worked()
            if fault is not None and fault.kind == "http_500":
                return at_the_gate(500)
            return good(data)
        except Refusal as refusal:
            return refused(refusal)
        except Gate as gate:
            return at_the_gate(gate.status)

    def _worked(self) -> Any:
        form, _, rest = request.path.removeprefix("/kaspi/").partition("/")
        found = [
            (route, match)
            for route in self._routes
            if route.method == request.method and form in route.forms and (match := route.path.match(rest))
        ]
        self._admit(form)
        if not found:
            raise Gate(404)
        route, match = found[0]
        given = request.args.to_dict() if request.method == "GET" else _body()
        if form == "r3" and route.bin_too and given.get("OrganizationBin") != settings.KASPI_BIN:
            raise Refusal(NO_TRADE_POINT)
        return route.handler(Asked(form, given), *match.groups())

    def _admit(self, form: str) -> None:
        """r1 by its key, the others by a certificate, which the second door has looked at."""
        if form == "r1":
            key = request.headers.get("Api-Key", "")
            if not hmac.compare_digest(key.encode(), settings.KASPI_API_KEY.encode()):
                raise Gate(401)
        elif not request.environ.get("SSL_CLIENT_CERT"):
            raise Refusal(NO_CERTIFICATE)

    # Trade points and devices

    def trade_points(self, asked: Asked, organisation: str = "") -> Any:
        if organisation not in ("", settings.KASPI_BIN):
            raise Refusal(NO_TRADE_POINT)
        return [{"TradePointId": key, "TradePointName": name} for key, name in TRADE_POINTS.items()]

    def register(self, asked: Asked) -> Any:
        device, point = asked.given.get("DeviceId"), asked.given.get("TradePointId")
        if point not in TRADE_POINTS or isinstance(point, bool):
            raise Refusal(NO_TRADE_POINT)
        if not isinstance(device, str) or not 0 < len(device) <= 80:
            raise Refusal(NO_DEVICE)
        token = self.world.register(device, point)
        if token is None:
            raise Refusal(DEVICE_ELSEWHERE)
        return {"DeviceToken": token}

    def remove(self, asked: Asked) -> Any:
        if not self.world.remove(asked.device):
            raise Refusal(NO_DEVICE)
        return None

    def _require_device(self, asked: Asked) -> None:
        if not self.world.has_device(asked.device):
            raise Refusal(NO_DEVICE)

    # Payments

    def create(self, asked: Asked) -> Any:
        payment = self._open(asked, "qr")
        options = {
            "StatusPollingInterval": POLL_SECONDS,
            "QrCodeScanWaitTimeout": SCAN_SECONDS,
            "PaymentConfirmationTimeout": CONFIRM_SECONDS,
        }
        return {
            "QrToken": payment.more["code"],
            "ExpireDate": _time(payment.expires),
            "QrPaymentId": int(payment.id),
            "PaymentMethods": _METHODS,
            "QrPaymentBehaviorOptions": options,
        }

    def create_link(self, asked: Asked) -> Any:
        payment = self._open(asked, "link")
        options = {
            "StatusPollingInterval": POLL_SECONDS,
            "LinkActivationWaitTimeout": SCAN_SECONDS,
            "PaymentConfirmationTimeout": CONFIRM_SECONDS,
        }
        return {
            "PaymentLink": f"{self._public_url}/kaspi/pay/{payment.id}",
            "ExpireDate": _time(payment.expires),
            "PaymentId": int(payment.id),
            "PaymentMethods": _METHODS,
            "PaymentBehaviorOptions": options,
        }

    def _open(self, asked: Asked, kind: str) -> Payment:
        """Each call opens another payment: nothing says that an ExternalId is unique."""
        self._require_device(asked)
        amount = tiyn(asked.given.get("Amount"))
        external = str(asked.given.get("ExternalId") or "")[:200]
        payment = self.world.open(kind, asked.device, external, amount, {})
        # As long as the codes of the samples, which are nothing but digits.
        payment.more["code"] = payment.id.ljust(41, "7")
        self.world.save(payment)
        return payment

    def status(self, asked: Asked, payment_id: str) -> Any:
        payment = self._find(payment_id)
        word = self.world.says(payment)
        told: Body = {
            "Status": word,
            "TransactionId": f"{payment.id}01" if payment.paid is not None else "",
            "LoanOfferName": "",
            "LoanTerm": 0,
            "IsOffer": False,
            "ProductType": "Gold" if payment.scanned is not None else "",
            "StoreName": settings.MERCHANT,
            "Address": "",
            "City": "Алматы",
        }
        begun = payment.scanned is not None or payment.paid is not None
        if begun and self.world.options()["tells_amount"]:
            told["Amount"] = tenge(payment.amount_minor)
        return told

    def details(self, asked: Asked) -> Any:
        self._require_device(asked)
        payment = self._find(str(asked.given.get("QrPaymentId", "")))
        if payment.status != PROCESSED or payment.paid is None:
            raise Refusal(NOT_RETURNABLE)
        left = payment.amount_minor - self.world.returned_minor(payment)
        return {
            "QrPaymentId": int(payment.id),
            "TotalAmount": tenge(payment.amount_minor),
            "AvailableReturnAmount": tenge(left),
            "TransactionDate": _time(payment.paid),
        }

    def _find(self, payment_id: str) -> Payment:
        payment = self.world.payment(payment_id)
        if payment is None or payment.kind == "biller":
            raise Refusal(NO_PAYMENT)
        return payment

    # What goes back

    def give_back(self, asked: Asked) -> Any:
        """r3 names the payment; r2 also the code that the customer has scanned."""
        self._require_device(asked)
        if asked.form == "r2":
            code = self.world.return_code(str(asked.given.get("QrReturnId", "")))
            if code is None or code.scanned is None:
                raise Refusal(NOT_RETURNABLE, "Клиент не отсканировал QR на возврат")
        payment = self._find(str(asked.given.get("QrPaymentId", "")))
        return {"ReturnOperationId": self.world.give_back(payment, tiyn(asked.given.get("Amount")))}

    def return_code(self, asked: Asked) -> Any:
        self._require_device(asked)
        code = self.world.new_return_code(asked.device)
        return {
            "QrToken": code.id.rjust(41, "5"),
            "ExpireDate": _time(code.expires),
            "QrReturnId": int(code.id),
            "QrReturnBehaviorOptions": {
                "QrCodeScanEventPollingInterval": POLL_SECONDS,
                "QrCodeScanWaitTimeout": SCAN_SECONDS,
            },
        }

    def return_status(self, asked: Asked, code_id: str) -> Any:
        code = self.world.return_code(code_id)
        if code is None:
            raise Refusal(NO_PAYMENT)
        return {"Status": "QrTokenScanned" if code.scanned is not None else "QrTokenCreated"}

    def operations(self, asked: Asked) -> Any:
        """The payments of the customer who has scanned the code: in the sandbox there is one customer."""
        self._require_device(asked)
        code = self.world.return_code(str(asked.given.get("QrReturnId", "")))
        if code is None or code.scanned is None:
            raise Refusal(NO_PAYMENT)
        most = asked.given.get("MaxResult")
        found = self.world.payments(
            most if isinstance(most, int) and 0 < most < 100 else 20, "status = ?", (PROCESSED,)
        )
        return [
            {
                "QrPaymentId": int(payment.id),
                "TransactionDate": _time(payment.paid or payment.created),
                "Amount": tenge(payment.amount_minor),
            }
            for payment in found
            if payment.kind != "biller"
        ]

    # The emulator

    def ping(self, asked: Asked) -> Any:
        return None

    def emulate(self, asked: Asked, what: str) -> Any:
        """What Kaspi's test environment lets a merchant do in the place of a customer."""
        payment = self._find(str(asked.given.get("qrPaymentId", "")))
        try:
            if what == "scan":
                self.world.scan(payment)
            elif what == "confirm":
                self.world.confirm(payment)
            else:
                self.world.fail(payment)
        except Impossible as error:
            raise Refusal(NOT_RETURNABLE, str(error)) from error
        return None


def _body() -> Body:
    given = request.get_json(force=True, silent=True)
    if not isinstance(given, dict):
        raise Gate(400)
    return given


def _time(moment: float) -> str:
    """As the samples have it: milliseconds, and Almaty's offset."""
    return datetime.fromtimestamp(moment, UTC).astimezone(_ALMATY).isoformat(timespec="milliseconds")


def blueprint(api: KaspiApi, edge: Callable[[Callable[[int], Response]], Edge]) -> Blueprint:
    """Everything under /kaspi/r1, r2 and r3."""
    routes = Blueprint("kaspi_api", __name__, url_prefix="/kaspi")
    served = edge(at_the_gate)

    @routes.route("/<any(r1, r2, r3):form>/<path:rest>", methods=["GET", "POST", "DELETE", "PUT"])
    def call(form: str, rest: str) -> Response:
        return served.serve(api.answer)

    return routes
