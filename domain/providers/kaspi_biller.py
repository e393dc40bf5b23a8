"""Kaspi as a biller's till: the browser takes the buyer to Kaspi, and Kaspi calls us.

It asks whether an account may be paid (`check`), and tells that it was (`pay`). Calls are not signed: a
secret path and a list of networks say whose they are. Sums are tenge with a point in the calls, and tiyn in
the form.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address, ip_network
from typing import Any

from domain.providers.calling import Answer, BadCall, Call, Verdict
from domain.providers.contract import Abilities, Presentation, Purchase
from domain.providers.kaspi_manual import KaspiTold

# Kaspi's clock, in every call.
_ALMATY = timezone(timedelta(hours=5))
_TXN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ACCOUNT = re.compile(r"[\x20-\x7e]{1,64}")
_SUM = re.compile(r"[0-9]{1,10}(\.[0-9]{1,2})?")
_CODES = {
    Verdict.OK: 0,
    Verdict.UNKNOWN: 1,
    Verdict.CANCELLED: 2,
    Verdict.PAID: 3,
    Verdict.BUSY: 4,
    Verdict.ERROR: 5,
}


class KaspiBiller(KaspiTold):
    """See `domain.providers.contract.Provider` and `domain.providers.calling.Caller`."""

    mode = "biller"
    # Who has begun to pay confirms it in the app, and Kaspi calls again where it was not answered.
    can = Abilities(ask=False, close=False, refund=False, search=True, lingers=timedelta(minutes=10))

    @property
    def open_minutes(self) -> int:
        return self._settings.kaspi_biller_minutes

    @property
    def ready(self) -> bool:
        settings = self._settings
        return bool(
            settings.kaspi_mode == self.mode and settings.kaspi_biller_service and settings.kaspi_biller_path
        )

    def presents(self, method: str) -> Presentation:
        return Presentation.FORM

    @property
    def _url(self) -> str:
        return self._settings.kaspi_biller_url

    def params(self, purchase: Purchase) -> dict[str, Any]:
        """The form's fields, of which Kaspi's own page is made, and what `create` needs beside them."""
        return {
            **super().params(purchase),
            "form": {
                "TranId": purchase.reference,
                "OrderId": purchase.order_code,
                "Amount": str(purchase.amount_minor),
                "Service": self._settings.kaspi_biller_service,
                "returnUrl": purchase.return_url,
            },
        }

    # --- Calls ---

    @property
    def believed_up_to_minor(self) -> int | None:
        return self._settings.kaspi_biller_believed_minor or None

    def admits(self, secret: str, address: str) -> bool:
        path = self._settings.kaspi_biller_path
        if not self.ready or not hmac.compare_digest(secret.encode(), path.encode()):
            return False
        try:
            caller = ip_address(address)
        except ValueError:
            return False
        caller = getattr(caller, "ipv4_mapped", None) or caller
        return any(caller in ip_network(one) for one in self._settings.kaspi_biller_ips)

    def read_call(self, query: Mapping[str, str]) -> Call:
        txn_id = query.get("txn_id", "")
        if not _TXN.fullmatch(txn_id):
            raise BadCall("txn_id is missing, or none.")
        command, account = query.get("command", ""), query.get("account", "").strip()
        if command not in ("check", "pay"):
            raise BadCall("command is neither check nor pay.", txn_id)
        if not _ACCOUNT.fullmatch(account):
            raise BadCall("account is missing.", txn_id)
        call = Call(command == "pay", txn_id, account, _minor(query), _moment(query))
        if call.pays and not call.amount_minor:
            raise BadCall("sum is missing, or none.", txn_id)
        return call

    def answer(self, answer: Answer) -> str:
        told: dict[str, Any] = {"txn_id": answer.txn_id, "result": _CODES[answer.verdict]}
        if answer.ours:
            told["prv_txn_id"] = answer.ours
        if answer.amount_minor is not None:
            told["sum"] = f"{Decimal(answer.amount_minor).scaleb(-2):.2f}"
        return json.dumps({**told, "comment": answer.words}, ensure_ascii=False)


def _minor(query: Mapping[str, str]) -> int | None:
    """The sum in tiyn; None where none can be read."""
    told = query.get("sum", "").strip()
    return int(Decimal(told).scaleb(2)) if _SUM.fullmatch(told) else None


def _moment(query: Mapping[str, str]) -> datetime | None:
    """When it was paid, by Kaspi's clock; None where that cannot be read, which keeps no money from us."""
    told = query.get("txn_date", "").strip()
    if len(told) != 14 or not told.isascii() or not told.isdigit():
        return None
    try:
        moment = datetime.strptime(told, "%Y%m%d%H%M%S").replace(tzinfo=_ALMATY)
    except ValueError:
        return None
    return moment if 2000 <= moment.year < 9000 else None
