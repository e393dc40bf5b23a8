"""What /control does to SumUp's payments and merchants: a person in the dashboard, and fate."""

from __future__ import annotations

import re
import secrets
import string
from typing import Any

from sandbox import settings
from sandbox.dashboards import BadRequest, Conflict, NotFound
from sandbox.sumup import cards, shapes
from sandbox.sumup.access import DEFAULT_SCOPES, OPTION_SHAPE, Access
from sandbox.sumup.books import FAILED, Checkout, Impossible, Transaction
from sandbox.sumup.cards import Card
from sandbox.sumup.merchants import PLATFORM, Merchant
from sandbox.sumup.money import CURRENCIES
from sandbox.sumup.world import World

Body = dict[str, Any]

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WORDS = {"PENDING": "open", "FAILED": "failed", "PAID": "paid", "EXPIRED": "expired"}
_TAMPERED: dict[str, type] = {
    "amount_minor": int,
    "currency": str,
    "reference": str,
    "account": str,
    "noise": bool,
}
ACTIONS = (
    *("pay", "decline", "cancel", "expire", "refund", "refund_fail"),
    *("dispute", "dispute_won", "dispute_lost", "tamper"),
)
# What other providers do and SumUp does not.
LACKING = ("pay_later", "complete_later", "fail_later", "inquiry")
_MORE = {
    "pay": {"card", "force"},
    "refund": {"amount_minor"},
    "dispute": {"amount_minor"},
    "tamper": {"set"},
}
_MERCHANT = ("code", "name", "currency", "country")
SCOPE = f"payments {DEFAULT_SCOPES}"


class SumupDashboard:
    """Payments are checkouts."""

    name = "sumup"

    def __init__(self, world: World, access: Access, public_url: str) -> None:
        self._world = world
        self._access = access
        self._public_url = public_url

    def has(self, payment_id: str) -> bool:
        return _ID.fullmatch(payment_id) is not None

    def payments(self, limit: int) -> list[Body]:
        """The newest payments. Each with `created` besides what /control shows of every provider."""
        with self._world.ready():
            return [self._show(checkout) for checkout in self._world.checkouts(limit)]

    def payment(self, payment_id: str) -> Body:
        """One payment. Raises NotFound."""
        with self._world.ready():
            return self._show(self._find(payment_id))

    def act(self, payment_id: str, request: Body) -> Body:
        """Do `request["do"]` and answer the payment as it is then. Raises BadRequest, NotFound, Conflict."""
        do = str(request.get("do"))
        if do in LACKING:
            why = "a card payment is made at once or not at all"
            why = "its chargebacks are told when they are made" if do == "inquiry" else why
            raise Conflict(f"SumUp has no {do.replace('_', ' ')}: {why}.")
        if do not in ACTIONS:
            raise BadRequest(f"do must be one of {', '.join(ACTIONS)}.")
        allowed = {"do"} | _MORE.get(do, set())
        if request.keys() - allowed:
            raise BadRequest(
                f"{do} takes {', '.join(sorted(allowed))}; not {', '.join(request.keys() - allowed)}."
            )
        with self._world.ready():
            checkout = self._find(payment_id)
            try:
                problem = getattr(self, f"_do_{do}")(checkout, request)
            except Impossible as error:
                raise Conflict(str(error)) from error
            shown = self._show(self._find(payment_id))
        if problem:
            # The attempt is on the books all the same.
            raise Conflict(problem)
        return shown

    # Each action is given the checkout and the request; `pay` returns why it failed.

    def _do_pay(self, checkout: Checkout, request: Body) -> str:
        """`card`: one of the test cards. `force`: also an expired checkout, as money comes late."""
        if request.get("force") and checkout.status == "EXPIRED":
            checkout.status, checkout.valid_until = "PENDING", None
        card = Card(str(request.get("card") or cards.GOOD).replace(" ", ""))
        return self._world.pay(checkout, card, confirmed=True)

    def _do_decline(self, checkout: Checkout, request: Body) -> None:
        self._world.pay(checkout, Card(cards.BAD))

    def _do_cancel(self, checkout: Checkout, request: Body) -> None:
        """The buyer closes the page, which has no way back to the shop. The bank is no longer waited for."""
        if checkout.status == "PAID":
            raise Impossible("This checkout is PAID: it can no longer be cancelled.")
        waiting = self._world.waiting(checkout)
        if waiting is not None:
            self._world.turn(waiting, "CANCELLED")

    def _do_expire(self, checkout: Checkout, request: Body) -> None:
        self._world.deactivate(checkout)

    def _do_refund(self, checkout: Checkout, request: Body) -> None:
        self._world.refund(self._charge(checkout), _amount(request))

    def _do_refund_fail(self, checkout: Checkout, request: Body) -> None:
        self._world.refund_fails(self._charge(checkout))

    def _do_dispute(self, checkout: Checkout, request: Body) -> None:
        """SumUp's word for it is chargeback."""
        self._world.charge_back(self._charge(checkout), _amount(request))

    def _do_dispute_won(self, checkout: Checkout, request: Body) -> None:
        self._world.close_charge_back(self._charge(checkout), won=True)

    def _do_dispute_lost(self, checkout: Checkout, request: Body) -> None:
        self._world.close_charge_back(self._charge(checkout), won=False)

    def _do_tamper(self, checkout: Checkout, request: Body) -> None:
        """Change what SumUp says. `noise`: its amounts travel as 0.1 + 0.2 comes out of a float."""
        changes = request.get("set")
        if isinstance(changes, dict) and "livemode" in changes:
            raise Conflict("SumUp does not say of a payment whether it is live.")
        if not isinstance(changes, dict) or not changes or changes.keys() - _TAMPERED.keys():
            raise BadRequest(f"set must be some of {', '.join(_TAMPERED)}.")
        for name, value in changes.items():
            kind = _TAMPERED[name]
            if not isinstance(value, kind) or isinstance(value, bool) and kind is int:
                raise BadRequest(f"set.{name} must be of type {kind.__name__}.")
        checkout.reference = changes.get("reference", checkout.reference)
        checkout.tampered |= {name: changes[name] for name in ("account", "noise") if name in changes}
        transactions = self._world.transactions(checkout.id)
        things: list[Checkout | Transaction] = [checkout, *transactions]
        for it in things:
            it.amount_minor = changes.get("amount_minor", it.amount_minor)
            it.currency = str(changes.get("currency", it.currency)).upper()
        self._world.save(checkout)
        for transaction in transactions:
            self._world.keep(transaction)

    # Merchants

    def merchants(self) -> list[Body]:
        """Everybody who has an account at the sandbox's SumUp."""
        with self._world.ready():
            return [self._show_merchant(merchant) for merchant in self._world.merchants()]

    def add_merchants(self, request: Body) -> list[Body]:
        """`count` merchants (1), or one of a certain `code`, `name`, `currency`, `country`; with tokens."""
        count = request.get("count", 1)
        texts: dict[str, str] = {name: request[name] for name in _MERCHANT if name in request}
        if request.keys() - {"count", *texts} or not all(isinstance(text, str) for text in texts.values()):
            raise BadRequest("A merchant has count, code, name, currency, country.")
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 1000:
            raise BadRequest("count must be between 1 and 1000.")
        if "code" in texts and (count > 1 or not re.fullmatch(r"M[A-Z0-9]{7}", texts["code"])):
            raise BadRequest("code is for one merchant: an M and seven capital letters or digits.")
        if texts.get("currency", "EUR") not in CURRENCIES:
            raise BadRequest(f"currency must be one of {', '.join(CURRENCIES)}.")
        with self._world.ready():
            return [self._add(texts) for _ in range(count)]

    def merchant_act(self, code: str, request: Body) -> Body:
        """`do`: token (hands out access and refresh token), revoke, revoke_access. Raises as `act`."""
        do = request.get("do")
        with self._world.ready():
            merchant = self._world.merchant(code)
            if merchant is None:
                raise NotFound(f"No SumUp merchant has the code {code}.")
            extra: Body = {}
            if do == "token":
                extra = self._tokens(code, request.get("scope", SCOPE))
            elif do == "revoke":
                extra = {"revoked": self._access.revoke(code, "access", "refresh", "code")}
            elif do == "revoke_access":
                extra = {"revoked": self._access.revoke(code, "access")}
            else:
                raise BadRequest("do must be one of token, revoke, revoke_access.")
            return self._show_merchant(merchant) | extra

    def _add(self, texts: dict[str, str]) -> Body:
        letters = string.ascii_uppercase + string.digits
        code = texts.get("code") or "M" + "".join(secrets.choice(letters) for _ in range(7))
        if self._world.merchant(code) is not None:
            raise Conflict(f"There is a merchant {code} already.")
        merchant = Merchant(
            code=code,
            name=texts.get("name", f"Merchant {code}"),
            email=f"{code.lower()}@sumup.example.org",
            country=texts.get("country", "DE"),
            currency=texts.get("currency", "EUR"),
            created=self._world.now(),
        )
        self._world.add_merchant(merchant)
        tokens = self._tokens(code, SCOPE)
        return self._show_merchant(merchant) | tokens

    def _tokens(self, code: str, scope: Any) -> Body:
        if not isinstance(scope, str):
            raise BadRequest("scope must be a text of scopes.")
        return self._access.issue(code, scope)

    def _show_merchant(self, merchant: Merchant) -> Body:
        return {
            "code": merchant.code,
            "name": merchant.name,
            "email": merchant.email,
            "country": merchant.country,
            "currency": merchant.currency,
            "platform": merchant.code == PLATFORM,
            "connected": self._access.alive(merchant.code) > 0,
        }

    # Settings

    def settings(self) -> Body:
        """What an application needs to use the sandbox's SumUp, and the options in force."""
        with self._world.ready():
            options = self._access.options()
        return {
            "api_base": f"{self._public_url}/sumup",
            "api_key": settings.SUMUP_API_KEY,
            "merchant_code": settings.SUMUP_MERCHANT,
            "client_id": settings.SUMUP_CLIENT_ID,
            "client_secret": settings.SUMUP_CLIENT_SECRET,
            "options": options,
        }

    def choose(self, options: Any) -> None:
        """Change some of the options. Raises BadRequest."""
        found = shapes.flaws(options, OPTION_SHAPE)
        if found:
            raise BadRequest("; ".join(flaw.message for flaw in found))
        if options.get("refund_status", 201) not in (201, 204):
            raise BadRequest("refund_status must be 201 or 204.")
        with self._world.ready():
            self._access.choose(options)

    # Underneath

    def _find(self, payment_id: str) -> Checkout:
        checkout = self._world.checkout(payment_id)
        if checkout is None:
            raise NotFound(f"No SumUp payment has the id {payment_id}.")
        return checkout

    def _charge(self, checkout: Checkout) -> Transaction:
        charged = self._world.charged(checkout)
        if charged is None:
            raise Impossible(f"Nobody has paid yet: the checkout is {checkout.status}.")
        return charged

    def _show(self, checkout: Checkout) -> Body:
        charged = self._world.charged(checkout)
        events = self._world.events(charged.id) if charged else []
        redirect_url = checkout.more.get("redirect_url")
        return {
            "id": checkout.id,
            "provider": self.name,
            "status": _WORDS[checkout.status],
            "amount_minor": checkout.amount_minor,
            "currency": checkout.currency,
            "reference": checkout.reference,
            "hosted_url": f"{self._public_url}/sumup/pay/{checkout.id}" if checkout.hosted else None,
            "success_url": redirect_url,
            # SumUp's page has no way back for who does not pay.
            "cancel_url": None,
            "created": checkout.created,
            "expires_at": checkout.valid_until,
            "account": checkout.account,
            "transaction": charged.id if charged else None,
            "refunded_minor": self._world.refunded_minor(charged) if charged else 0,
            # What a bank has, or wants back; and every refund that was ever made, those that failed too.
            "disputed_minor": sum(
                event.amount_minor
                for event in events
                if event.type == "CHARGE_BACK" and event.status != FAILED
            ),
            "refunds": [event.amount_minor for event in events if event.type == "REFUND"],
        }


def _amount(request: Body) -> int | None:
    amount = request.get("amount_minor")
    if amount is not None and (isinstance(amount, bool) or not isinstance(amount, int) or amount < 1):
        raise BadRequest("amount_minor must be a whole number of minor units, 1 or more.")
    return amount
