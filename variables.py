"""Reading environment variables as what they are meant to be, with errors that name them for the operator."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from email.utils import parseaddr
from functools import cache
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
from babel.core import get_global
from babel.numbers import get_territory_currencies
from email_validator import EmailNotValidError, validate_email

_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
# What is asked for in one go, in whole units of its currency: no provider takes more.
LARGEST_AMOUNT = 999_999
# What a person types as an amount; Decimal alone would take 1e9, 1_000 and other scripts' digits too.
TYPED_AMOUNT = re.compile(r"-?([0-9]{1,20}([.,][0-9]{0,10})?|[.,][0-9]{1,10})")
_THOUSANDS = re.compile(r"(?<![0-9])[0-9]{1,3}(,[0-9]{3})+(?![0-9])")
# A mailbox on this machine: the rules of the open internet know no such address.
_LOCAL_MAILBOX = re.compile(r"[A-Za-z0-9._+-]+@localhost")
# A host's name or address, and where an API is.
_HOST = re.compile(r"[^\s/:@?#]+|\[?[0-9A-Fa-f:.]+\]?")
_ORIGIN = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII
)
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
_PROXY = re.compile(r"https?://([^\s/?#@]+@)?[^\s/?#@]+/?")


@cache
def known_currencies() -> frozenset[str]:
    """The currencies that people pay with somewhere today: no gold, none for tests, nothing abolished."""
    territories = get_global("territory_currencies")
    return frozenset(code for place in territories for code in get_territory_currencies(place))


class ConfigError(click.ClickException):
    """A setting that is missing or wrong; its text tells the operator which, and what to set.

    A command prints it in one line and ends with 1.
    """


def is_timezone(name: str) -> bool:
    """Whether `name` is a time zone: not what this machine's happens to be, nor a file beside them."""
    if name.partition("/")[0] in ("localtime", "Factory", "posixrules", "posix", "right", "leapseconds"):
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _is_address(value: str) -> bool:
    """Whether mail can be written to it, by the rules for buyers' addresses. One on this machine will do."""
    if _LOCAL_MAILBOX.fullmatch(value):
        return True
    try:
        validate_email(value, check_deliverability=False, test_environment=True, allow_smtputf8=False)
    except EmailNotValidError:
        return False
    return True


def _one_or_two(value: str, amounts: list[int]) -> str:
    """What in a list may be one number with a comma for thousands, such as 1,500. Empty where nothing is.

    A list of growing amounts that begins like 10,50 can only have commas between: so it goes on.
    """
    found = _THOUSANDS.search(value)
    if found is None or (found.start() > 0 and amounts == sorted(set(amounts))):
        return ""
    return found[0]


def _origin(name: str, typed: str, development: bool) -> str:
    """`typed` in the one form in which a browser would send it."""
    found = _ORIGIN.fullmatch(typed.lower().rstrip("/"))
    local = found is not None and found[2] in ("localhost", "127.0.0.1", "[::1]")
    if found is None or (found[1] == "http" and not (development and local)):
        raise ConfigError(
            f"{name} must be sites such as https://app.example.org, blanks between (one is {typed[:80]!r})."
        )
    port = found[3]
    if port and not 1 <= int(port) <= 65535:
        raise ConfigError(f"{name} names a port that there is none of (in {typed[:80]!r}).")
    usual = {"https": "443", "http": "80"}[found[1]]
    return f"{found[1]}://{found[2]}" + (f":{int(port)}" if port and port != usual else "")


def _check_port(name: str, url: str) -> None:
    """Refuse a port that there is none of, and a host that is none: every call would end with that."""
    try:
        usable = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:
        usable = False
    if url and not usable:
        raise ConfigError(f"{name} must name a host, and behind it a port from 1 to 65535, or none.")


def _wrong(name: str, what: str, value: str) -> ConfigError:
    return ConfigError(f"{name} must be {what} (it is {value!r}).")


class Reader:
    """Typed reading of variables, with errors that name them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def text(self, name: str, default: str = "", most: int = 10_000) -> str:
        value = self.environ.get(name, "").strip()
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
            raise ConfigError(f"{name} must be one line of text, with nothing invisible in it.")
        if len(value) > most:
            raise ConfigError(f"{name} is too long: at most {most} characters.")
        return value or default

    def file(self, name: str, most: int = 100_000) -> str:
        """Where a file is, or what is in it: base64, or PEM. What was wrapped, as `base64` does, is one line.

        Some hosts keep a line break as a backslash and an n, which stand in no base64.
        """
        typed = self.environ.get(name, "").strip()
        lines = typed.replace("\\n", "\n").splitlines()
        if len(lines) < 2:
            return self.text(name, most=most)
        pem = typed.startswith("-----BEGIN ")
        joined = ("\n" if pem else "").join(line.strip() for line in lines)
        if len(joined) > most or not joined.isascii() or not joined.replace("\n", "").isprintable():
            raise ConfigError(f"{name} must be a path, or a file in base64.")
        return joined

    def address(self, name: str) -> str:
        """A mail address, or "" where none is set."""
        value = self.text(name)
        if value and not _is_address(value):
            raise ConfigError(f"{name} must be one mail address such as box@example.org (it is {value!r}).")
        return value

    def sender(self, name: str) -> str:
        """A mail address, before which a name may stand."""
        value = self.text(name)
        if value and not _is_address(parseaddr(value)[1]):
            raise ConfigError(
                f"{name} must be a mail address, or a name and the address as in "
                f"Box office <box@example.org> (it is {value!r})."
            )
        return value

    def host(self, name: str) -> str:
        value = self.text(name)
        if value and not _HOST.fullmatch(value):
            raise _wrong(name, "a host such as smtp.example.org, without a port", value)
        return value

    def url(self, name: str, default: str = "") -> str:
        value = self.text(name, default)
        if value and not _URL.fullmatch(value):
            raise ConfigError(f"{name} must begin with https:// and a host (it is {value!r}).")
        _check_port(name, value)
        return value.rstrip("/")

    def origins(self, name: str, *, development: bool) -> tuple[str, ...]:
        """Sites, as browsers write an origin: https, or in development http on this machine."""
        return tuple(
            _origin(name, each, development) for each in re.split(r"[,\s]+", self.text(name)) if each
        )

    def picture(self, name: str) -> str:
        """Where a picture is: below /static/ of this site, or elsewhere."""
        value = self.text(name)
        if value and not value.startswith("/static/") and not re.fullmatch(r"https?://[^\s/?#@]+/\S+", value):
            raise ConfigError(f"{name} must begin with https:// or /static/ (it is {value!r}).")
        return value

    def required(self, name: str, what: str) -> str:
        value = self.text(name)
        if not value:
            raise ConfigError(f"{name} is not set. It is {what}.")
        return value

    def number(self, name: str, default: int, least: int = 0, most: int = 1_000_000) -> int:
        value = self.text(name)
        if not value:
            return default
        if len(value) > 9 or not value.isascii() or not value.isdigit() or int(value) < least:
            raise ConfigError(f"{name} must be a whole number, {least} or more (it is {value[:40]!r}).")
        if int(value) > most:
            raise ConfigError(f"{name} must be {most} or less (it is {value!r}).")
        return int(value)

    def amount(self, name: str, default: Decimal) -> Decimal:
        value = self.text(name)
        if value and ("," in value or not TYPED_AMOUNT.fullmatch(value)):
            raise ConfigError(f"{name} must be an amount such as 12.50 (it is {value[:40]!r}).")
        amount = Decimal(value) if value else default
        if amount < 0:
            raise ConfigError(f"{name} must be an amount of zero or more (it is {value!r}).")
        # What is too much for its currency is refused by domain/money.py; this would be too long to write.
        if amount and amount.adjusted() > 12:
            raise ConfigError(f"{name} must be {LARGEST_AMOUNT} or less (it is {value[:40]!r}).")
        return amount

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self.text(name)
        if not value:
            return default
        parts = [part.strip() for part in value.split(",")]
        # One that begins with a 0 is the end of a number with a comma for thousands.
        if not all(part.isascii() and part.isdigit() and not part.startswith("0") for part in parts):
            raise _wrong(name, "whole numbers above zero with commas between", value)
        if any(len(part) > 12 for part in parts):
            raise ConfigError(f"{name} must be amounts of at most 12 digits (it is {value[:40]!r}).")
        if found := _one_or_two(value, [int(part) for part in parts]):
            raise ConfigError(
                f"{name} has {found[:40]!r} in it, which may be one amount or several. Write "
                f"{found[:40].replace(',', '')} for one, or a blank after each comma for several."
            )
        return tuple(int(part) for part in parts)

    def flag(self, name: str, default: bool) -> bool:
        value = self.text(name).lower()
        if value not in ("", "1", "0", "true", "false", "yes", "no", "on", "off"):
            raise ConfigError(f"{name} must be true or false (it is {value!r}).")
        return value in ("1", "true", "yes", "on") if value else default

    def choice(self, name: str, default: str, among: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in among:
            raise ConfigError(f"{name} must be one of {', '.join(among)} (it is {value!r}).")
        return value

    def pairs(self, name: str, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """Words with what each stands for, such as `Gone=expired, Held=processing`."""
        found = []
        for part in filter(None, (part.strip() for part in self.text(name).split(","))):
            word, _, value = (half.strip() for half in part.partition("="))
            if not word or value not in values:
                what = f"words with one of {', '.join(values)} behind each, such as Word={values[0]}"
                raise _wrong(name, what, part[:40])
            found.append((word, value))
        return tuple(found)

    def proxy(self, name: str) -> str:
        """Where a proxy is. It may name a user and a password, so it is not repeated."""
        value = self.text(name)
        if value and not _PROXY.fullmatch(value):
            raise ConfigError(f"{name} must be http:// or https:// and a host, such as http://proxy:3128.")
        _check_port(name, value)
        return value

    def currency(self, name: str, default: str) -> str:
        value = self.text(name, default).upper()
        if len(value) != 3 or not value.isascii() or not value.isalpha():
            raise _wrong(name, "a currency code of three letters, such as EUR", value)
        if value not in known_currencies():
            raise _wrong(name, "a currency that people pay with, such as EUR", value)
        return value

    def domain(self, name: str) -> str:
        value = self.text(name).lower().removeprefix("https://").rstrip("/")
        if value and not _DOMAIN.fullmatch(value):
            raise ConfigError(f"{name} must be a domain such as pay.example.org (it is {value!r}).")
        return value

    def timezone(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not is_timezone(value):
            raise ConfigError(f"{name} must be a time zone such as Europe/Jersey (it is {value!r}).")
        return value
