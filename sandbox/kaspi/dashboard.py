"""What /control does to Kaspi's payments: a customer with the app, a cashier with theirs, and fate."""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path
from typing import Any

from sandbox import settings
from sandbox.dashboards import BadRequest, Conflict, NotFound
from sandbox.kaspi import biller
from sandbox.kaspi.books import CREATED, ERROR, OPENED, OPTIONS, PROCESSED, WAIT, Impossible, Payment
from sandbox.kaspi.certificates import Certificates
from sandbox.kaspi.wire import Refusal
from sandbox.kaspi.world import World

Body = dict[str, Any]

_ID = re.compile(r"(biller-)?[0-9]{1,20}")
_WORDS = {CREATED: "open", OPENED: "open", WAIT: "processing", PROCESSED: "paid", ERROR: "failed"}
ACTIONS = (
    *("pay", "decline", "pay_later", "complete_later", "fail_later", "cancel", "expire", "refund", "tamper"),
    *("look", "scan", "confirm", "check"),
)
# What other providers do and Kaspi does not.
LACKING = ("refund_fail", "dispute", "dispute_won", "dispute_lost", "inquiry")
_MORE = {
    "pay": {"force", "amount_minor", "txn_id", "from", "check", "check_minor"},
    "check": {"amount_minor", "txn_id", "from"},
    "refund": {"amount_minor"},
    "tamper": {"set"},
}
_TAMPERED: dict[str, type] = {"amount_minor": int, "status": str}


class KaspiDashboard:
    """Payments of the QR API, and those of a biller's form."""

    name = "kaspi"

    def __init__(self, world: World, public_url: str, certificates: Certificates) -> None:
        self._world = world
        self._public_url = public_url
        self._certificates = certificates
        # Set when the second door is open.
        self.tls_url = ""

    def has(self, payment_id: str) -> bool:
        return _ID.fullmatch(payment_id) is not None

    def payments(self, limit: int) -> list[Body]:
        """The newest payments. Each with `created` besides what /control shows of every provider."""
        with self._world.ready():
            return [self._show(payment) for payment in self._world.payments(limit)]

    def payment(self, payment_id: str) -> Body:
        """One payment. Raises NotFound."""
        with self._world.ready():
            return self._show(self._find(payment_id))

    def act(self, payment_id: str, request: Body) -> Body:
        """Do `request["do"]` and answer the payment as it is then. Raises BadRequest, NotFound, Conflict."""
        do = str(request.get("do"))
        if do in LACKING:
            raise Conflict(f"Kaspi tells nothing of a {do.replace('_', ' ')}.")
        if do not in ACTIONS:
            raise BadRequest(f"do must be one of {', '.join(ACTIONS)}.")
        allowed = {"do"} | _MORE.get(do, set())
        if request.keys() - allowed:
            raise BadRequest(
                f"{do} takes {', '.join(sorted(allowed))}; not {', '.join(request.keys() - allowed)}."
            )
        if do == "scan" and self._scanned_for_a_return(payment_id):
            return {"id": payment_id, "scanned": True}
        with self._world.ready():
            payment = self._find(payment_id)
            of_biller = payment.kind == "biller"
        if of_biller:
            return self._of_biller(payment, do, request)
        if do == "check":
            raise Conflict("Only a biller’s payment is asked about at the shop.")
        with self._world.ready():
            try:
                getattr(self, f"_do_{do}")(self._find(payment_id), request)
            except (Impossible, Refusal) as error:
                raise Conflict(str(error)) from error
            return self._show(self._find(payment_id))

    # Each action is given the payment and the request.

    def _do_pay(self, payment: Payment, request: Body) -> None:
        """`force`: also when the code's time is over, as money comes late."""
        self._world.pay(payment, late=bool(request.get("force")))

    def _do_decline(self, payment: Payment, request: Body) -> None:
        """Refused in the app, or there was not enough money: the payment is over."""
        self._world.fail(payment)

    def _do_pay_later(self, payment: Payment, request: Body) -> None:
        """Scanned, and not confirmed yet."""
        self._world.scan(payment)

    _do_scan = _do_pay_later

    def _do_look(self, payment: Payment, request: Body) -> None:
        """The link was opened in the app."""
        self._world.look(payment)

    def _do_complete_later(self, payment: Payment, request: Body) -> None:
        self._world.confirm(payment)

    _do_confirm = _do_complete_later

    def _do_fail_later(self, payment: Payment, request: Body) -> None:
        if payment.status != WAIT:
            raise Impossible("Nobody is confirming it.")
        self._world.fail(payment)

    def _do_cancel(self, payment: Payment, request: Body) -> None:
        """The customer goes away. Before they have scanned, Kaspi knows nothing of it."""
        if payment.status == WAIT:
            self._world.fail(payment)
        elif not payment.waits:
            raise Impossible(f"This payment is {payment.status}.")

    def _do_expire(self, payment: Payment, request: Body) -> None:
        self._world.run_out(payment)

    def _do_refund(self, payment: Payment, request: Body) -> None:
        """By the cashier, in their own app."""
        left = payment.amount_minor - self._world.returned_minor(payment)
        amount = _amount(request)
        if payment.status == PROCESSED and not left:
            raise Impossible("All of it went back already.")
        self._world.give_back(payment, left if amount is None else amount)

    def _do_tamper(self, payment: Payment, request: Body) -> None:
        """Change what Kaspi says. `status`: any word, or "" for the true one again."""
        changes = request.get("set")
        lacking = {"currency", "reference", "account", "livemode"}
        if isinstance(changes, dict) and lacking & changes.keys():
            raise Conflict(f"Kaspi says nothing of a payment’s {', '.join(sorted(lacking))}.")
        if not isinstance(changes, dict) or not changes or changes.keys() - _TAMPERED.keys():
            raise BadRequest(f"set must be some of {', '.join(_TAMPERED)}.")
        for name, value in changes.items():
            if not isinstance(value, _TAMPERED[name]) or isinstance(value, bool):
                raise BadRequest(f"set.{name} must be of type {_TAMPERED[name].__name__}.")
        payment.amount_minor = changes.get("amount_minor", payment.amount_minor)
        if "status" in changes:
            payment.more.pop("status", None)
            payment.more |= {"status": changes["status"]} if changes["status"] else {}
        self._world.save(payment)

    # A biller's payments

    def _of_biller(self, payment: Payment, do: str, request: Body) -> Body:
        """Kaspi asks the shop, and tells it. No lock is held meanwhile.

        `txn_id`: one that was told before, for a call that is repeated; `amount_minor`: another sum;
        `from`: the address of the caller; `check`: false for a `pay` without the question before it, and
        `check_minor`: the sum of the question, which may be a dummy.
        """
        if do not in ("pay", "check"):
            raise Conflict("A biller’s payment can be asked about (check) and paid (pay).")
        txn_id = str(request.get("txn_id") or payment.more.get("txn_id") or _txn_id())
        if do == "pay" and payment.paid is not None and "txn_id" not in request:
            raise Conflict("It is paid. Name its txn_id to tell the shop again, or another to pay again.")
        with self._world.ready():
            options, now = self._world.options(), self._world.now()
        account = str(payment.more.get(options["biller_account"], ""))
        amount = _amount(request) or payment.amount_minor
        calls = []
        try:
            if do == "check" or request.get("check", True) is not False:
                asked = request.get("check_minor", amount)
                query = biller.query("check", payment, account, txn_id, int(asked), now)
                calls.append(biller.call(options["biller_url"], query, str(request.get("from") or "")))
            if do == "pay" and all(biller.accepted(answer) for answer in calls):
                query = biller.query("pay", payment, account, txn_id, amount, now)
                calls.append(biller.call(options["biller_url"], query, str(request.get("from") or "")))
        except biller.BadUrl as error:
            raise Conflict(str(error)) from error
        with self._world.ready():
            payment = self._find(payment.id)
            payment.more |= {"txn_id": txn_id, "calls": calls}
            if calls[-1]["query"]["command"] == "pay" and biller.accepted(calls[-1]):
                payment.status, payment.paid = PROCESSED, payment.paid or now
            self._world.save(payment)
            return self._show(payment)

    # Settings

    def settings(self) -> Body:
        """What an application needs to use the sandbox's Kaspi, and the options in force."""
        with self._world.ready():
            options = self._world.options()
        return {
            "api_base": f"{self._public_url}/kaspi",
            "tls_base": f"{self.tls_url}/kaspi",
            "api_key": settings.KASPI_API_KEY,
            "device_token": settings.KASPI_DEVICE_TOKEN,
            "trade_point": "1001",
            "bin": settings.KASPI_BIN,
            "pfx": _text(self._certificates.pfx),
            "pfx_password": settings.KASPI_PFX_PASSWORD,
            "ca": _text(self._certificates.ca),
            "biller_form": f"{self._public_url}/kaspi/online",
            "options": options,
        }

    def choose(self, options: Any) -> None:
        """Change some of the options. Raises BadRequest."""
        if not isinstance(options, dict) or options.keys() - OPTIONS.keys():
            raise BadRequest(f"kaspi has {', '.join(OPTIONS)}.")
        for name, value in options.items():
            if type(value) is not type(OPTIONS[name]):
                raise BadRequest(f"kaspi.{name} must be of type {type(OPTIONS[name]).__name__}.")
        if options.get("biller_account", "OrderId") not in ("OrderId", "TranId"):
            raise BadRequest("kaspi.biller_account must be OrderId or TranId.")
        with self._world.ready():
            self._world.choose(options)

    # Underneath

    def _scanned_for_a_return(self, code_id: str) -> bool:
        """Whether it is a code for a return, which is scanned now."""
        with self._world.ready():
            code = self._world.return_code(code_id)
            if code is None:
                return False
            if self._world.now() >= code.expires:
                raise Conflict("The code’s time is over.")
            self._world.scan_return_code(code)
            return True

    def _find(self, payment_id: str) -> Payment:
        payment = self._world.payment(payment_id)
        if payment is None:
            raise NotFound(f"No Kaspi payment has the id {payment_id}.")
        return payment

    def _show(self, payment: Payment) -> Body:
        over = self._world.is_over(payment)
        page = "online" if payment.kind == "biller" else "pay"
        return {
            "id": payment.id,
            "provider": self.name,
            "status": "expired" if over and payment.kind != "biller" else _WORDS[payment.status],
            "amount_minor": payment.amount_minor,
            "currency": "KZT",
            "reference": payment.external_id,
            "hosted_url": f"{self._public_url}/kaspi/{page}/{payment.id}",
            "success_url": payment.more.get("returnUrl") or None,
            "cancel_url": None,
            "created": payment.created,
            "expires_at": payment.expires,
            "account": settings.KASPI_BIN,
            "kind": payment.kind,
            "says": self._world.says(payment),
            "code": payment.more.get("code"),
            "refunded_minor": self._world.returned_minor(payment),
            "calls": payment.more.get("calls", []),
            "txn_id": payment.more.get("txn_id"),
        }


def _txn_id() -> str:
    return str(10**12 + secrets.randbelow(9 * 10**12))


def _text(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _amount(request: Body) -> int | None:
    amount = request.get("amount_minor")
    if amount is not None and (isinstance(amount, bool) or not isinstance(amount, int) or amount < 1):
        raise BadRequest("amount_minor must be a whole number of minor units, 1 or more.")
    return amount
