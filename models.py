"""The data dictionary: every table there is, and where its columns, constraints and states are written.

`from models import Order` works everywhere; the tables themselves stand in `tables/`, a file an area.
"""

from __future__ import annotations

# Programs that act for members.
from tables.api import (
    ApiKey,  # a key that a member gave to a server
    ApiRefreshToken,  # what a program gets its next access token with, once
    ApiRequest,  # a request that was named, and its answer, so that it can be repeated
    ApiSession,  # a program that a member is logged in with
)

# Who changed what.
from tables.audit import (
    ActorKind,  # a member, a key, a visitor, a command, a job
    AuditArea,  # role, price, text, setting, event, connection, key, person
    AuditEntry,  # one change, from what to what, by whom
    Deed,  # made, changed, removed
)

# Backups that were taken, and the lives of the shop that restored ones began.
from tables.backups import (
    Backup,  # a backup: where it went, and which keys belong to it
    Epoch,  # a life that a restored backup began, and since when it sells
)

# What is on sale: events, their ticket types and pictures.
from tables.catalogue import (
    Event,  # what people buy tickets for
    EventKind,  # an event with tickets, or a tournament
    EventState,  # draft, published, cancelled, in review
    LineMode,  # whether who buys waits in a line
    Picture,  # an uploaded picture, with its bytes
    TicketType,  # one kind of ticket, with its price and its stock
)

# Organisers' own accounts at payment providers.
from tables.connections import (
    Connection,  # an organiser's account at a provider, with its sealed tokens
    ConnectionState,  # connected, broken, disconnected
)

# Who may stand at a door, and what was scanned there.
from tables.door import (
    CheckIn,  # one scan and its verdict
    DoorPass,  # a link and PIN for door staff
    Verdict,  # valid, used, of another event, void, forged, unknown
)

# Double entry, wallets, and what is paid from them.
from tables.ledger import (
    Agent,  # a service that members pay for by use
    HoldState,  # held, captured, voided, expired
    Transfer,  # minor units moved from one ledger account to another
    Wallet,  # a member's money in one currency
    WalletHold,  # wallet money kept for what is being delivered
)

# Runs of the checks, processes that live, and texts that the operator edits.
from tables.office import (
    CheckRun,  # one run of the invariants, and what did not hold
    Heartbeat,  # when a process last said that it lives
    Page,  # a text that the operator edits
    SettingSeen,  # a setting as it was at the last start
    Tally,  # how many old rows of a table have come to which end
    WholeCheck,  # one night's asking of everything, a part at a time
)

# What somebody wants to buy, line by line, and what was observed and decided about it.
from tables.orders import (
    ADMISSIONS,  # the kinds of lines that become tickets
    LineKind,  # ticket, top-up, listing fee, tournament entry
    LinePlace,  # one address's place in an event's waiting line
    Order,  # what somebody wants to buy: every purchase is one
    OrderLine,  # a quantity of one thing at one price
    OrderState,  # from pending to completed, failed, refunded ...
    StockState,  # none, held, sold, released
    TimelineEntry,  # one observation or decision about an order
)

# Attempts to pay, money that goes back, rings of providers, and money that waits for a person.
from tables.payments import (
    PAYMENT_ACTIVE,  # the states that keep an order from another attempt
    PAYMENT_NEXT,  # state of a payment -> the states allowed next
    Dispute,  # a buyer's bank taking the money back, or asking about it
    DisputeState,  # open, won, lost
    Incident,  # money that no rule could map to goods
    Payment,  # one attempt to pay one order at one provider
    PaymentState,  # from created to paid, failed, in review ...
    Refund,  # money going back for a payment
    RefundState,  # from created to succeeded, failed, in review ...
    WebhookEvent,  # a ring of a provider's doorbell
)

# Members, their logins and one-time links, and organisers.
from tables.people import (
    DeskGrant,  # that somebody answers the telephone for an organiser
    Device,  # a browser that an account has logged in by before
    FactorKind,  # an app that counts codes, or a passkey
    LinkPurpose,  # what a one-time link is for
    Login,  # a browser that somebody is logged in with
    LoginCode,  # a mailed code for a login that a password alone does not open
    OneTimeLink,  # a link that works once, and expires
    Organiser,  # who sells events of their own: application and profile
    OrganiserState,  # pending, approved, rejected, suspended
    RecoveryCode,  # a code on a printed sheet, in place of the second factor
    Role,  # buyer, organiser, door, desk, admin
    SecondFactor,  # what a member shows beside the password
    User,  # a person with an account
)

# Mail owed.
from tables.post import (
    OF_OTHERS,  # as a condition in SQL: mails to staff, which tell of somebody else
    MailBudget,  # how many mails strangers asked for on behalf of one recipient
    MailRequest,  # a mail that was asked for by an address alone, to be looked at by whoever delivers
    MailState,  # due, sent, failed
    OutboxMail,  # a mail owed, written in the transaction of its cause
)

# What people asked to have forgotten.
from tables.privacy import (
    Erasure,  # that all about an address is to be forgotten
    ErasureState,  # asked, taken back, done
)

# What orders are found by.
from tables.search import (
    OrderWord,  # one word by which one order is found
)

# Runs of the sweep, and how far each account was asked what happened there.
from tables.sweep import (
    AccountCursor,  # how far an account was asked what happened there
    SweepRun,  # one run of the sweep, and what it did
)

# Admissions.
from tables.tickets import (
    Ticket,  # one admission
    TicketState,  # valid, suspended, void
)

# Reports that are told, where a provider cannot be asked.
from tables.told import (
    Awaits,  # what a told report needs before it is evidence
    BillerAnswer,  # what a provider that called was answered
    ToldReport,  # what a person, or a provider's call, tells of a payment
    ToldState,  # paid, unpaid, extra
)

# Tournaments, their categories, athletes, and their entries.
from tables.tournaments import (
    Athlete,  # somebody whom a member enters in tournaments
    Category,  # whom a category of a tournament is for
    Consent,  # a guardian's word that a minor may take part
    Participant,  # one athlete in one category of one tournament
    ParticipantState,  # PENDING, PAID, WITHDRAWN
    Sex,  # female, male
    Tournament,  # what a tournament has beside its event
    Withdrawal,  # what an athlete who withdraws in time gets back
)

__all__ = [
    "ADMISSIONS",
    "Athlete",
    "Awaits",
    "BillerAnswer",
    "Category",
    "Consent",
    "EventKind",
    "OrderWord",
    "Tally",
    "WholeCheck",
    "Participant",
    "ParticipantState",
    "Sex",
    "Tournament",
    "Withdrawal",
    "OF_OTHERS",
    "PAYMENT_ACTIVE",
    "PAYMENT_NEXT",
    "AccountCursor",
    "ActorKind",
    "Agent",
    "ApiKey",
    "ApiRefreshToken",
    "ApiRequest",
    "ApiSession",
    "AuditArea",
    "AuditEntry",
    "CheckIn",
    "CheckRun",
    "Connection",
    "ConnectionState",
    "Deed",
    "DeskGrant",
    "Dispute",
    "DisputeState",
    "DoorPass",
    "Erasure",
    "ErasureState",
    "Event",
    "EventState",
    "Heartbeat",
    "HoldState",
    "Incident",
    "LineKind",
    "LineMode",
    "LinePlace",
    "LinkPurpose",
    "Device",
    "FactorKind",
    "Login",
    "MailBudget",
    "MailRequest",
    "LoginCode",
    "RecoveryCode",
    "SecondFactor",
    "MailState",
    "OneTimeLink",
    "Order",
    "OrderLine",
    "OrderState",
    "Organiser",
    "OrganiserState",
    "OutboxMail",
    "Page",
    "Payment",
    "PaymentState",
    "Picture",
    "Refund",
    "RefundState",
    "Role",
    "SettingSeen",
    "StockState",
    "SweepRun",
    "Ticket",
    "TicketState",
    "TicketType",
    "TimelineEntry",
    "ToldReport",
    "ToldState",
    "Transfer",
    "User",
    "Verdict",
    "Wallet",
    "WalletHold",
    "WebhookEvent",
    "Backup",
    "Epoch",
]
