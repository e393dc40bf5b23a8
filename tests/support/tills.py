"""Where a buyer pays: in what the providers that the sandbox imitates differ for whoever stands outside."""

from __future__ import annotations

import json
from dataclasses import dataclass

from flask.testing import FlaskClient

from models import Payment
from tests.support.web import ring


@dataclass(frozen=True)
class Till:
    """One provider. The paths are regular expressions, for the sandbox's faults."""

    name: str
    # All of its API, and the calls that open a payment and that send money back.
    api: str
    opens: str
    refunds: str
    # After so many seconds an open payment is over.
    open_seconds: int
    # Of what a buyer reads whose card was refused.
    refused: str
    # Whether its rings are signed, and so remembered.
    signed: bool

    def ring(self, client: FlaskClient, payment: Payment) -> int:
        """Ring about a payment as this provider does; the status that it is answered with."""
        if self.signed:
            return ring(client, session_event(payment)).status_code
        body = json.dumps({"event_type": "CHECKOUT_STATUS_CHANGED", "id": payment.provider_id})
        return client.post(f"/{self.name}/webhook/", data=body).status_code


STRIPE = Till(
    name="stripe",
    api="^/stripe/",
    opens="^/stripe/v1/checkout/sessions$",
    refunds="^/stripe/v1/refunds$",
    open_seconds=36 * 60 + 10,
    refused="declined",
    signed=True,
)
SUMUP = Till(
    name="sumup",
    api="^/sumup/",
    opens="^/sumup/v0.1/checkouts$",
    refunds="^/sumup/v1.0/merchants/.*/refunds$",
    open_seconds=120 * 60 + 10,
    refused="refused",
    signed=False,
)
TILLS = (STRIPE, SUMUP)


def session_event(payment: Payment, kind: str = "checkout.session.completed", event_id: str = "evt_1") -> str:
    """The body of Stripe's ring about a payment."""
    thing = {
        "id": payment.provider_id,
        "object": "checkout.session",
        "metadata": {"reference": payment.reference},
    }
    return json.dumps({"id": event_id, "type": kind, "data": {"object": thing}})
