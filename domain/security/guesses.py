"""Who may guess a password how often, and what a right one is worth meanwhile.

Three counts, of failures alone. Ten at one account from one place in a quarter of an hour: there, no more are
taken. 500 from one network: no more are taken from it, but for browsers that the account has logged in by
before. 100 an hour at one account from everywhere: nobody is refused for that, or strangers could lock its
owner out; but a password alone does not open it any more, for somebody has guessed too often at it. The
browser has to have been here, or a mailed code, or the account's second factor, has to come with it.

A network that is most of the shop (a proxy that was not told to us, a school on the day of a sale) is never
refused: there, too, the right password only needs the code besides.
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.errors import DomainError
from domain.security import fronts, rate_limits


@dataclass(frozen=True)
class Place:
    """Where a guess comes from: a network, and the browser where the account knows it; else an empty text."""

    network: str
    device: str = ""

    @property
    def counted(self) -> str:
        return f"device:{self.device}" if self.device else f"network:{self.network}"


def begin(who: str, place: Place) -> bool:
    """Count a guess at an account, before it is compared. Whether a right password is enough by itself.

    DomainError `too_many_attempts` where no guess is taken.
    """
    few = rate_limits.count(rate_limits.LOGIN_ACCOUNT, _at(who, place))
    # What only seems to be a place, for everybody is there, stops nobody.
    shared = not place.device and fronts.is_shared(place.network)
    if not few and not shared:
        raise too_many()
    enough = rate_limits.count(rate_limits.LOGIN_EVERYWHERE, who)
    if place.device:
        return True
    if rate_limits.count(rate_limits.LOGIN_NETWORK, place.network):
        return few and enough
    if not shared:
        rate_limits.give_back(rate_limits.LOGIN_EVERYWHERE, who)
        raise too_many()
    return False


def was_right(who: str, place: Place, *, enough: bool = True) -> None:
    """The guess was none: it is taken off the counts, and the place's begins again where that was `enough`.

    Where it was not, the place's count stands: what a right password needs besides is asked again, too.
    """
    if enough:
        begin_again(who, place)
    else:
        rate_limits.give_back(rate_limits.LOGIN_ACCOUNT, _at(who, place))
    rate_limits.give_back(rate_limits.LOGIN_EVERYWHERE, who)
    if not place.device:
        rate_limits.give_back(rate_limits.LOGIN_NETWORK, place.network)


def begin_again(who: str, place: Place) -> None:
    """Whoever is here has proven in another way that the account is theirs."""
    rate_limits.forget(rate_limits.LOGIN_ACCOUNT, _at(who, place))


def _at(who: str, place: Place) -> str:
    return f"{who}@{place.counted}"


def too_many() -> DomainError:
    return DomainError(
        "too_many_attempts",
        "Too many wrong passwords. Wait 15 minutes, or have a link mailed to choose a new password with.",
    )
