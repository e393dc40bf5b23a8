"""Addresses of mail: one normal form, made here, in which they are stored, compared, counted and mailed.

The form is ASCII throughout: the domain in lower case by IDNA 2008 (`info@straße.de` is
`info@xn--strae-oqa.de`, where IDNA 2003, which Python's own codec speaks, would name strasse.de, somebody
else's), and the part before the @ in lower case, too. People are shown what they would write: `shown()`.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from email.errors import HeaderParseError, MessageError
from email.headerregistry import Address
from email.utils import parseaddr

import idna
from email_validator import EmailNotValidError, validate_email

import config
from domain.errors import DomainError

LONGEST = 254
# What is typed may be longer than its normal form: a domain's letters can have signs that nobody sees.
_LONGEST_TYPED = 2 * LONGEST
# What the standard library raises for a text that is no address.
_NO_ADDRESS = (ValueError, IndexError, HeaderParseError, MessageError)


def normal(typed: str) -> str:
    """The normal form of an address as somebody types it; DomainError when no mail can be sent there.

    Letters beyond ASCII may stand after the @ only: few mail servers deliver to the others.
    """
    plain = _plain(typed)
    if len(plain) > _LONGEST_TYPED:
        raise DomainError("email_invalid", "That e-mail address does not look right: it is too long.")
    if any(sign.isspace() for sign in plain):
        raise DomainError("email_invalid", "That e-mail address does not look right: there is a blank in it.")
    try:
        found = validate_email(
            plain,
            check_deliverability=False,
            test_environment=True,
            allow_smtputf8=False,
        )
    except EmailNotValidError as error:
        raise DomainError("email_invalid", f"That e-mail address does not look right: {error}") from error
    address = (found.ascii_email or "").lower()
    if len(address) > LONGEST or not _can_be_written(address):
        raise DomainError(
            "email_invalid", "That e-mail address does not look right: mail cannot be sent to it."
        )
    return address


def _plain(typed: str) -> str:
    """What was typed, without the blanks around it and with each letter in one piece."""
    return unicodedata.normalize("NFC", typed.strip())


def mailbox(address: str) -> Address:
    """An address as a letter's header carries it. DomainError for one that no letter can be sent to.

    `normal()` lets nothing pass that is refused here, so this is about rows and settings of other times.
    """
    try:
        return Address(addr_spec=address if address.isascii() else normal(address))
    except _NO_ADDRESS as error:
        raise DomainError("email_invalid", f"“{address}” is not an address to send to.") from error


def _can_be_written(address: str) -> bool:
    try:
        mailbox(address)
    except DomainError:
        return False
    return True


def settled(address: str) -> str:
    """The normal form where there is one, else the text as it is: for what must be kept in any case."""
    try:
        return normal(address)
    except DomainError:
        return address


# In place of an address that was forgotten. No mail can be sent there: no registry has such a domain.
GONE = "gone@erased.invalid"
GONE_WORDS = "The address was forgotten, as its owner asked, or by its age."


def shown(address: str) -> str:
    """An address as people write it: with the letters of its domain instead of their code."""
    if address.endswith(GONE):
        return "(address forgotten)"
    local, at, domain = address.rpartition("@")
    if "xn--" not in domain:
        return address
    try:
        return f"{local}{at}{idna.decode(domain)}"
    except idna.IDNAError:
        return address


def went_elsewhere(address: str) -> bool:
    """Whether mail to an address with letters in its domain used to go to another one (IDNA 2003)."""
    domain = address.rpartition("@")[2]
    try:
        return not domain.isascii() and domain.encode("idna").decode() != idna.encode(domain).decode()
    except UnicodeError:
        # No mail was sent there at all. idna's errors are of this kind, too.
        return False


def spellings(typed: str) -> list[str]:
    """How a typed address may be stored, the likeliest first: rows from before the normal form have letters.

    Each is in lower case. What is no address is only itself; too long a text is nothing at all.
    """
    plain = typed.strip().lower()
    if len(plain) > LONGEST or "\x00" in plain:
        return []
    address = settled(typed)
    return list(dict.fromkeys([plain, address, shown(address)]))


def key(typed: str) -> str:
    """What a limit counts an address under, however it is spelled.

    Cut only as `normal()` would read it, so nothing that it takes for one address is counted as two.
    """
    return settled(_plain(typed)[:_LONGEST_TYPED]).strip().lower()


# Where dots before the @ mean nothing, by the provider's own word.
_WITHOUT_DOTS = ("gmail.com", "googlemail.com")


def mailbox_key(typed: str) -> str:
    """The mailbox that an address most likely is: for what is counted, not for what is shown or joined.

    What follows a plus is a person's own mark nearly everywhere.
    """
    local, at, domain = key(typed).rpartition("@")
    plain = local.partition("+")[0] or local
    if domain in _WITHOUT_DOTS:
        plain, domain = plain.replace(".", ""), _WITHOUT_DOTS[0]
    return f"{plain}{at}{domain}"


def settle(settings: config.Settings) -> config.Settings:
    """The settings with their addresses in the normal form. ConfigError names one that cannot be used.

    SUPPORT_EMAIL is put into words everywhere and compared with nothing, so it is as people write it.
    """
    admin = _of_setting("ADMIN_EMAIL", settings.admin_email)
    support = shown(_of_setting("SUPPORT_EMAIL", settings.support_email))
    alert = _of_setting("PAYMENT_ALERT_EMAIL", settings.alert_email)
    sender = _of_setting("MAIL_SENDER", settings.mail_sender)
    return replace(settings, admin_email=admin, support_email=support, alert_email=alert, mail_sender=sender)


def _of_setting(name: str, value: str) -> str:
    """A setting's address; MAIL_SENDER may have a name before its own, which stays.

    One on this machine (`root@localhost`) is no address for people to have, and a server can send to it.
    """
    bare = parseaddr(value)[1] if name == "MAIL_SENDER" else value
    if not value or (bare.isascii() and bare.endswith("@localhost")):
        return value
    try:
        return value.replace(bare, normal(bare)) if bare else normal(value)
    except DomainError as error:
        raise config.ConfigError(f"{name} cannot be used (it is {value!r}). {error.message}") from error
