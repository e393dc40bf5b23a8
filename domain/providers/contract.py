"""The contract between Kassa and a payment provider.

An adapter turns a provider's API into `Report`s: what the provider says about a payment, in Kassa's words.
It holds no state of ours, imports neither models nor the database, and decides nothing. The rules that
apply a report are in `domain/payments/settling.py` and are the same for every provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


class ProviderError(Exception):
    """A call that gave no usable answer. Unknown is not unpaid: it never changes a payment's state.

    `permanent` means that repeating the same call cannot help (refused parameters, an unknown id).
    `code` is the provider's own word for it, for the log and the timeline. `undone` means that whatever the
    call was to do was certainly not done, so that it may be made again without doing it twice. `sticks` means
    that the provider keeps this answer under the call's key, so that only another key gets another one.
    `silent` means that nothing came back at all.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool,
        code: str = "",
        undone: bool = False,
        sticks: bool = False,
        silent: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.code = code
        self.undone = undone
        self.sticks = sticks
        self.silent = silent


@contextmanager
def before_asking() -> Iterator[None]:
    """Around what comes before a call that does something: where this fails, nothing was done."""
    try:
        yield
    except ProviderError as error:
        error.undone = True
        raise


class Missing(ProviderError):
    """The provider answered that it has no such object."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True, code="not_found")


class Anothers(ProviderError):
    """The answer is about another payment than the one that was asked about: there is no answer.

    It passes, for the provider is asked again, and a person is told.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"The answer is about another payment: {what}.", permanent=False, code="unreadable")


@dataclass(frozen=True)
class Abilities:
    """What an account can do about a payment besides taking it. The domain follows this, never a name.

    `ask`: `fetch` reads the payment; where it cannot, reports are told (domain/payments/told_reports.py).
    `close`: an open payment can be ended there; where it cannot, it ends by itself, or a person ends it.
    `refund`: money is sent back by a call; where it is not, a person does it and records it.
    `search`: `find` tells for certain whether a payment was made; where it cannot, a create whose answer was
    lost goes to a person, and is never made again.
    `lingers`: where nothing can be closed, for how long after its `expires_at` a payment may still be paid:
    who has begun to pay confirms it, and the provider is slow to say so.
    `tells`: what is not said to be paid after that was not paid. Where only a person knows who has looked at
    the bank, silence means nothing, and a person ends it.
    """

    ask: bool = True
    close: bool = True
    refund: bool = True
    search: bool = True
    lingers: timedelta = timedelta(0)
    tells: bool = True


class Presentation(StrEnum):
    """How the buyer of an open payment comes to pay it."""

    # They are sent to the provider's page, which is the report's `url`.
    PAGE = "page"
    # Our page shows the `url` as a QR code, and as a link on a phone where it is an address.
    QR = "qr"
    # Our page says in words what to do; nothing is opened anywhere.
    WORDS = "words"
    # Our page, which is the `url`, carries the provider's own button, which its script draws.
    ELEMENT = "element"
    # Our page carries a form of the stored parameters, which the browser sends to the report's `url`.
    FORM = "form"


@dataclass(frozen=True)
class LineItem:
    """A line as the provider's page shows it. `unit_minor` in the payment's currency."""

    name: str
    quantity: int
    unit_minor: int


@dataclass(frozen=True)
class Purchase:
    """What a provider needs to know in order to take a payment.

    `success_url` holds the placeholder {CHECKOUT_SESSION_ID}, for providers that put their own id there;
    others send the buyer to `return_url`, which names our reference instead.
    """

    reference: str
    order_code: str
    amount_minor: int
    currency: str
    lines: tuple[LineItem, ...]
    email: str
    success_url: str
    cancel_url: str
    # Until when the order is kept for its payment: Kassa closes the provider's page then. Where a call that
    # is repeated late would be refused for asking too little time, an adapter asks for more.
    closes_at: datetime
    account: str
    # Where this Kassa's doorbell for the provider is.
    doorbell_url: str = ""
    # Which of the adapter's `methods` the buyer chose; "" is its first.
    method: str = ""

    @property
    def return_url(self) -> str:
        """Where to send the buyer, for a provider that fills no id of its own into addresses."""
        return self.success_url.replace("{CHECKOUT_SESSION_ID}", self.reference)


@dataclass(frozen=True)
class RefundReport:
    """What a provider says about one refund. `state`: pending, succeeded, failed or cancelled.

    `provider_id` is unique among all refunds of the provider; "" where it gave the refund no id.
    """

    provider_id: str
    amount_minor: int
    currency: str
    state: str
    reason: str = ""
    # Our own id of the refund, where the provider keeps one for us; else "".
    our_key: str = ""


@dataclass(frozen=True)
class DisputeReport:
    """What a provider says about one dispute. `state`: open, won or lost.

    `inquiry`: the bank only asks, and has taken nothing; it may become a dispute under the same id.
    """

    provider_id: str
    amount_minor: int
    currency: str
    state: str
    status: str
    reason: str = ""
    inquiry: bool = False


@dataclass(frozen=True)
class Decline:
    """An attempt to pay that was refused. `code` is one of failure_reasons.py, `words` the provider's own.

    `name` tells one attempt from the next (a charge, a transaction); "" where the provider names none.
    """

    name: str
    code: str
    words: str = ""


@dataclass(frozen=True)
class Report:
    """What a provider says about one payment, read from its API.

    `state` is one of open, processing, paid, failed, cancelled, expired. `amount_minor` and `currency` (upper
    case) are what is asked for or was paid; `reference` is ours as the provider kept it. `reason` says why
    it failed, or an attempt did, in the provider's words and for staff; `reason_code` is ours for buyers.
    """

    provider: str
    provider_id: str
    state: str
    amount_minor: int
    currency: str
    reference: str
    account: str
    livemode: bool
    created_at: datetime | None = None
    expires_at: datetime | None = None
    url: str | None = None
    charge_id: str | None = None
    # What it was really paid with, in the words of the API (`apple_pay`, `card`); "" where it is not told.
    used_method: str = ""
    # The last four digits of the card or account it was paid with; "" where they are not told.
    last_four: str = ""
    # Who paid, where the provider tells: all that is known of a buyer whose order was lost.
    payer_email: str = ""
    payer_name: str = ""
    # When the buyer paid, by the provider's clock; None where it does not tell, or nobody has paid.
    paid_at: datetime | None = None
    reason: str = ""
    reason_code: str = ""
    # The refused attempts that this reading shows, oldest first; there may be earlier ones.
    declines: tuple[Decline, ...] = ()
    refunds: tuple[RefundReport, ...] = ()
    disputes: tuple[DisputeReport, ...] = ()
    # Whose the charge itself says that it is: a reference, or an order's code; "" where it says nothing else
    # than the payment does.
    charge_for: str = ""
    # Which of `reference` and `amount` this reading says nothing of: "" and 0 stand there. The payment's id
    # is then all that tells whose it is, and money of which nobody says how much it is, is for a person.
    untold: frozenset[str] = frozenset()
    # What of it went back so far, where the provider tells the sum only, and no refund by itself.
    refunded_minor: int | None = None
    # There are or may be refunds and disputes that this report leaves out: read the payment by its id, again.
    incomplete: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def back_minor(self) -> int:
        """What of it went back by this report, or is on its way."""
        if self.refunded_minor is not None:
            return self.refunded_minor
        return sum(each.amount_minor for each in self.refunds if each.state in ("pending", "succeeded"))


@dataclass(frozen=True)
class Happening:
    """Something that happened at an account to money that is ours, as the account's list tells it.

    `charges` are the names the charge may have; `name` is our reference, or the code of our order, and
    `handle` what the adapter finds the payment by, should we have no record of it. What the list tells is one
    of: money came in (`paid`), a refund, a dispute, or only that something changed (`unclear`).
    """

    charges: tuple[str, ...]
    name: str
    handle: str
    paid: bool = False
    # What of it went back so far, where the list tells the sum only.
    refunded_minor: int | None = None
    refund: RefundReport | None = None
    dispute: DisputeReport | None = None
    unclear: bool = False


@dataclass(frozen=True)
class Told:
    """A page of what happened. `through`: all until then has been told, on this page and those before it."""

    happenings: tuple[Happening, ...]
    through: datetime | None = None


class Credentials(Protocol):
    """The right to speak for one connected account. Asked outside any transaction, from any thread."""

    def token(self) -> str:
        """A token that was good when it was last looked at."""

    def renewed(self, rejected: str) -> str:
        """Another token than the one that the provider has just refused.

        Both raise a passing ProviderError, with the code `not_connected` when the connection is broken.
        """


@runtime_checkable
class Provider(Protocol):
    """What every adapter can do, for one account. Methods make provider calls; none touches the database.

    `patient` tells whether the caller may wait: False in a web request (one attempt of 5 seconds), True in
    the worker (bounded retries). Every method raises ProviderError when it gets no usable answer.
    """

    name: str
    label: str
    # The ways to pay through it, in the words of the API; pages use the first. A word has one provider.
    methods: tuple[str, ...]
    can: Abilities
    # True where the money is in our own ledger, so that starting a payment also settles it.
    immediate: bool
    # True where payments may go to accounts of organisers, too, which they connect.
    connects: bool
    # True where an open payment that is STUCK_MINUTES old is worth telling an admin: it may have been paid.
    pending_alert: bool
    # True where the provider keeps our key with a refund, so that a lost one is found by it. Where it does
    # not, a refund is recognised by the cumulative amount: see `refunded_minor`.
    keeps_refund_keys: bool

    @property
    def open_minutes(self) -> int:
        """For how many minutes an order is kept for its payment; then an open one is closed by us."""

    @property
    def ready(self) -> bool:
        """Whether it is configured, so that a payment may be offered through it."""

    @property
    def account(self) -> str:
        """The account that this adapter speaks for, as it is written into payments and the ledger."""

    @property
    def livemode(self) -> bool:
        """Whether this adapter moves real money."""

    def presents(self, method: str) -> Presentation:
        """How somebody who chose one of its `methods` comes to pay."""

    def supports(self, currency: str) -> bool:
        """Whether a payment in `currency` can be taken."""

    def minimum_minor(self, currency: str) -> int:
        """The smallest amount that can be taken, in minor units."""

    def params(self, purchase: Purchase) -> dict[str, Any]:
        """The exact parameters of the create call, JSON-serialisable, to be stored before it is made."""

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        """Open a payment at the provider with stored parameters under an idempotency key."""

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        """Look for a payment by our reference in the provider's list; None when it is certainly absent.

        Where a person waits (`patient` is False), a long list is not read through: that is a ProviderError.
        """

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        """Read one payment. `thorough` also asks for its refunds and disputes when nothing hints at any.

        Raises Missing when the provider has no such payment, and Anothers when it answers with another one.
        """

    def pages(self, since: datetime, until: datetime) -> Iterator[list[Report]] | None:
        """Reports of the payments created between two times, a page a provider call; None: cannot list."""

    def happened(self, since: datetime, until: datetime) -> Iterator[Told] | None:
        """What happened at the account between two times to money that is ours; None: it cannot tell.

        A page a provider call, or a few. It may tell more than that, and the same again, but of money that is
        somebody else's it tells nothing. A passing error with the code `forbidden` says that we may not ask.
        """

    def behind(self, happening: Happening) -> Report | None:
        """The payment behind money of which we have no record; None where it is not ours after all."""

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> Report:
        """Ask that the payment can no longer be paid, and read it again: that reading has the last word.

        Harmless when it is final already. What the provider calls failed, but lets the buyer try again,
        is `open` elsewhere and `failed` here.
        """

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        """Send `amount_minor` back for a paid payment under our key.

        The same key is the same refund, where the provider keeps keys; otherwise each call is another one,
        and after an error that does not say `undone` it is not made again. An answer about another payment's
        refund is Anothers.
        """

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        """The refund that was made under our key; None when it is certainly absent.

        Asked only where the provider keeps keys.
        """

    def refunded_minor(self, provider_id: str, *, patient: bool = False) -> int:
        """How much of a paid payment went back so far, by anybody, in minor units.

        Asked before and after a refund where the provider does not keep keys.
        """

    def health(self) -> Mapping[str, Any]:
        """A cheap call that proves the connection: account, mode, API version. Never a key."""


@runtime_checkable
class Retraces(Protocol):
    """A provider whose reports show a payment's last refused attempt only, and that tells all if asked."""

    def declines(self, report: Report, *, patient: bool = False) -> tuple[Decline, ...]:
        """Every refused attempt of the payment that `report` is about, oldest first.

        Asked when the report shows one that is new.
        """


@dataclass(frozen=True)
class Element:
    """The provider's own button for our page: the script that draws it, and the public key it is given.

    `sources` is what the page's policy must allow for it: origins, by Content-Security-Policy's directive.
    Without a key there is no button, and what it presents is not offered.
    """

    script: str
    key: str
    sources: Mapping[str, tuple[str, ...]]


@runtime_checkable
class HasClientSecret(Protocol):
    """A provider whose button on our page (`Presentation.ELEMENT`) pays by a secret of the payment's."""

    @property
    def element(self) -> Element:
        """The button. No call is made."""

    def client_secret(self, provider_id: str) -> str | None:
        """The secret by which a browser pays this one payment, read from the provider: it is kept nowhere.

        None where the payment is made on the provider's own page.
        """


def can_present(provider: Provider, method: str) -> bool:
    """Whether who chose a provider's method can come to pay: a button on our page needs its public key."""
    if provider.presents(method) is not Presentation.ELEMENT:
        return True
    return isinstance(provider, HasClientSecret) and bool(provider.element.key)


@dataclass(frozen=True)
class DomainStatus:
    """What a provider says of a host on which its button shall stand. No `problems`: it may."""

    domain: str
    livemode: bool
    problems: tuple[str, ...] = ()


@runtime_checkable
class KnowsDomains(Protocol):
    """A provider whose button is shown on hosts only that are registered there."""

    def domain_status(self, domain: str) -> DomainStatus | None:
        """What it says of a host; None where it does not know it."""

    def register_domain(self, domain: str, *, patient: bool = True) -> DomainStatus:
        """Make a host known, or have it looked at again: a few calls."""


@runtime_checkable
class Devices(Protocol):
    """A provider that takes payments through devices of its own kind, which are registered with it once."""

    def trade_points(self) -> Mapping[str, str]:
        """Where the account sells, as the provider knows it: number -> name."""

    def register_device(self) -> str:
        """Register this Kassa as a device at the trade point of the settings; the token that it is given."""


@runtime_checkable
class Steps(Protocol):
    """A provider that does not take every amount of a currency, but those of whole steps."""

    def step_minor(self, currency: str) -> int:
        """The step in minor units: 100 where nothing finer than a whole unit is taken."""


@runtime_checkable
class Instructs(Protocol):
    """A provider whose buyers read in words how to pay."""

    @property
    def instructions(self) -> str:
        """To whom the money goes, in the operator's words; our page adds the amount and the reference."""


@runtime_checkable
class Confirmed(Protocol):
    """A provider whose payments a person confirms who has looked at the bank's statement."""

    @property
    def two_people_above_minor(self) -> int | None:
        """Above it two different people confirm, in minor units; None: one is always enough."""

    def bank_reference(self, typed: str) -> str:
        """The bank's name for a payment, as it is kept; "" where what was typed cannot be one."""


@runtime_checkable
class Doorbell(Protocol):
    """A provider that rings: turns a request into the thing to look at.

    The adapter of the provider's own account answers the door for all accounts.
    """

    @property
    def rings(self) -> bool:
        """Whether the doorbell is configured. Without it everything else works."""

    def ring(self, body: bytes, headers: Mapping[str, str]) -> Ring:
        """Check the request and read the event. BadSignature when it is not genuine, or not readable.

        `headers` by names in lower case. No call is made.
        """


@dataclass(frozen=True)
class Ring:
    """An event that came to the door: which payment to look at, by any of the ids it may carry.

    One without an `event_id` is not signed: anybody may have sent it. It is not remembered, and only makes
    us ask the provider, seldom.
    """

    event_id: str
    type: str
    object_id: str
    provider_id: str | None = None
    charge_id: str | None = None
    reference: str | None = None
    # The PUBLIC_URL of the Kassa that opened the payment: another may use the same account.
    site: str | None = None
    # The event can tell nothing but that the payment was made, or is being made.
    only_of_paying: bool = False
    # It speaks of an attempt that was refused and that has no name of its own; each one rings once.
    of_a_decline: bool = False

    def __post_init__(self) -> None:
        """Whatever an adapter reads, each name is text that a database can look up. BadSignature if not."""
        for value in (self.event_id, self.type, self.object_id):
            if value != "":
                told_name(value)
        for known in (self.provider_id, self.charge_id, self.reference, self.site):
            if known is not None:
                told_name(known)


class BadSignature(Exception):
    """A doorbell request that is not genuine, or not readable."""


_LONGEST_NAME = 255


def told_name(value: object, longest: int = _LONGEST_NAME) -> str:
    """An id or a word that an event tells. Raises BadSignature for what is none, whoever has signed it.

    JSON has numbers, lists and objects, too, and text with halves of characters and zero bytes in it, of
    which the database refuses each in its own way.
    """
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise BadSignature("An event tells no name where one belongs.")
    return value
