"""What a program may do for a member: a scope for each resource and verb, and which roles have it at all."""

from __future__ import annotations

from enum import StrEnum

from models import Role


class Scope(StrEnum):
    """What a token or a key lets a program do. An API key has those that it was given, and no other."""

    PAYMENTS_READ = "payments:read"
    PAYMENTS_WRITE = "payments:write"
    PARTICIPANTS_READ = "participants:read"
    PARTICIPANTS_WRITE = "participants:write"
    ATHLETES_READ = "athletes:read"
    ATHLETES_WRITE = "athletes:write"
    WALLET_READ = "wallet:read"
    WALLET_USAGE = "wallet:usage"
    TICKETS_CHECK_IN = "tickets:check-in"
    ADMIN_PAYMENTS = "admin:payments"
    ADMIN_REFUNDS = "admin:refunds"
    ADMIN_STATISTICS = "admin:statistics"


# What each lets a program do, in the words of the page on which a key is made.
WORDS = {
    Scope.PAYMENTS_READ: "See your payments",
    Scope.PAYMENTS_WRITE: "Begin and cancel payments of your entries",
    Scope.PARTICIPANTS_READ: "See your entries in tournaments",
    Scope.PARTICIPANTS_WRITE: "Enter your athletes in tournaments, and withdraw them",
    Scope.ATHLETES_READ: "See your athletes",
    Scope.ATHLETES_WRITE: "Add athletes and change them",
    Scope.WALLET_READ: "See your wallet and what moved in it",
    Scope.WALLET_USAGE: "Pay for services from your wallet",
    Scope.TICKETS_CHECK_IN: "Check tickets in at your doors",
    Scope.ADMIN_PAYMENTS: "See everybody's payments",
    Scope.ADMIN_REFUNDS: "Give the money of payments back",
    Scope.ADMIN_STATISTICS: "See the statistics of all payments",
}
_ADMINS = frozenset({Role.ADMIN})
# Who has a scope at all; every member has the others, over what is theirs.
_ONLY = {
    Scope.TICKETS_CHECK_IN: frozenset({Role.ADMIN, Role.ORGANISER, Role.DOOR}),
    Scope.ADMIN_PAYMENTS: _ADMINS,
    Scope.ADMIN_REFUNDS: _ADMINS,
    Scope.ADMIN_STATISTICS: _ADMINS,
}
# What an admin alone may let a program do.
FOR_ADMINS = frozenset(scope for scope, roles in _ONLY.items() if roles == _ADMINS)
_EVERYBODY = frozenset(Role)


def of_role(role: Role) -> frozenset[Scope]:
    """All that a member with this role may let a program do now."""
    return frozenset(scope for scope in Scope if role in _ONLY.get(scope, _EVERYBODY))


def of_keys_of(role: Role) -> frozenset[Scope]:
    """All that a member with this role may give a key; who answers the telephone has none, for anything."""
    return frozenset() if role is Role.DESK else of_role(role)
