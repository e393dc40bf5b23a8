"""Names of people, as they are typed and as they are written into mails and documents.

A name is repeated in genuine mails and tickets to an address that anybody may type, so it must carry no
address of the web; and what is printed must be what a door reads, so nothing in it is invisible or turns its
letters round. Names with dots are names: Dr.Müller, Mary St.John, M.Sc.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import idna
from publicsuffixlist import PublicSuffixList

from domain.errors import DomainError

LONGEST = 200
# A label of so many letters before a public suffix is an address; shorter ones are initials and titles.
_SHORTEST_LABEL = 4
# Titles of that length that people join to what follows: Dipl.Ing. is no address, though .ing is a suffix.
_TITLES = frozenset({"assoc", "capt", "dipl", "hons", "prof", "univ"})
# They turn round or hide what comes after them. Marks that only nudge the direction are dropped instead.
_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")
# Letters by their category, and blank all the same.
_BLANKS = str.maketrans(dict.fromkeys("\u115f\u1160\u3164\uffa0\u2800", " "))
# These scripts join and part letters by the joiners, and emoji join by one; in others nobody sees them.
_JOINERS = "\u200c\u200d"
_JOINED = frozenset(
    [
        *("ADLAM", "ARABIC", "BALINESE", "BENGALI", "BRAHMI", "CHAKMA", "DEVANAGARI", "GRANTHA"),
        *("GUJARATI", "GURMUKHI", "JAVANESE", "KAITHI", "KANNADA", "KHMER", "LIMBU", "MALAYALAM"),
        *("MANDAIC", "MONGOLIAN", "MYANMAR", "NEWA", "NKO", "ORIYA", "SINHALA", "SUNDANESE"),
        *("SYRIAC", "TAMIL", "TELUGU", "TIBETAN", "TIRHUTA"),
    ]
)
# Signs by which letters and emoji are varied. Alone they are not to be seen, so an address is judged without.
_VARIED = re.compile("[\u034f\u180b-\u180f\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_LIKE_A_POINT = str.maketrans("\u3002\uff61", "..")
_DOTTED = re.compile(r"[^\s.,;:!?()<>\[\]{}\"'“”„‘’«»|/@]+(?:\.[^\s.,;:!?()<>\[\]{}\"'“”„‘’«»|/@]+)+")
# Sure signs, in full-width and other spellings too, which are made plain before.
_SIGNS = re.compile(r"[/\\@<>\u2044\u2215]|\b(www\.|https?:)", re.IGNORECASE)
# No registry has them, and mail programs link them all the same.
_RESERVED = frozenset({"example", "test", "invalid", "local", "localhost", "internal", "onion"})
_JOINS, _HAIR = "\u2060", "\u200a"


def clean(typed: str, *, why: str = "") -> str:
    """A name as it is kept: NFC, single blanks. DomainError in words, which tell `why` one is wanted."""
    _refuse_overrides(typed)
    cleaned = plain(typed)
    if not any(unicodedata.category(sign)[0] in "LNSP" for sign in cleaned):
        raise DomainError("name_missing", f"Type your name{why}.")
    if len(cleaned) > LONGEST:
        raise DomainError("name_too_long", f"That name is too long. Use at most {LONGEST} characters.")
    if carries_address(cleaned):
        raise DomainError(
            "name_strange",
            "That does not look like a name. Type it without web addresses, "
            "and with a blank after a full stop.",
        )
    return cleaned


def plain(typed: str) -> str:
    """A name in NFC with single blanks, and without what cannot be seen. It may be empty."""
    beside = zip(" " + typed, typed, typed[1:] + " ", strict=False)
    seen = "".join(_visible(sign, before, after) for before, sign, after in beside)
    return unicodedata.normalize("NFC", " ".join(seen.translate(_BLANKS).split()).rstrip(_JOINERS))


def _visible(sign: str, before: str, after: str) -> str:
    category = unicodedata.category(sign)
    if sign in _JOINERS:
        joins = (_script(before) in _JOINED and _script(after) in _JOINED) or _are_emoji(before, after)
        return sign if joins else ""
    if category in ("Cf", "Cs"):
        return ""
    return " " if category == "Cc" else sign


def _script(sign: str) -> str:
    """The script of a letter, or of a mark on one: Unicode's names begin with it."""
    return unicodedata.name(sign, "").partition(" ")[0] if unicodedata.category(sign)[0] in "LM" else ""


def _are_emoji(before: str, after: str) -> bool:
    """Whether two signs are emoji; the first may end with its colour of skin, or the mark of an emoji."""
    drawn = (
        unicodedata.category(before) == "So" or before == "\ufe0f" or "\U0001f3fb" <= before <= "\U0001f3ff"
    )
    return drawn and unicodedata.category(after) == "So"


def _refuse_overrides(typed: str) -> None:
    if _OVERRIDES.search(typed):
        raise DomainError(
            "name_strange", "That name has signs in it that cannot be seen. Type it, instead of pasting it."
        )


def carries_address(name: str) -> bool:
    """Whether a mail program, or a reader, would make an address of the web of something in a name."""
    plain = unicodedata.normalize("NFKC", _VARIED.sub("", name)).translate(_LIKE_A_POINT)
    return _SIGNS.search(plain) is not None or any(
        _is_domain(found[0], _SHORTEST_LABEL) for found in _DOTTED.finditer(plain)
    )


def unlinked(name: str) -> str:
    """A name for a mail, whose reader makes no link of it: M.Sc is a domain, too.

    An invisible sign that joins words stands where an address would be recognised; other names are unchanged.
    """
    return _parted(name, _JOINS)


def printed(name: str) -> str:
    """The same for a document, which leaves out the invisible: there a hair's breadth of space does it."""
    return _parted(name, _HAIR)


def _parted(name: str, by: str) -> str:
    if carries_address(name):
        return re.sub(r"([./:@])(?=\S)", rf"\1{by}", name)
    return _DOTTED.sub(
        lambda found: found[0].replace(".", f".{by}") if _is_domain(found[0], 1) else found[0], name
    )


def _is_domain(dotted: str, shortest: int) -> bool:
    """Whether a public suffix stands somewhere after a label of at least so many letters."""
    labels = dotted.lower().split(".")
    return any(
        len(labels[at]) >= shortest
        and (shortest == 1 or labels[at] not in _TITLES)
        and _is_suffix(".".join(labels[at + 1 : end]))
        for at in range(len(labels) - 1)
        for end in range(at + 2, len(labels) + 1)
    )


def _is_suffix(dotted: str) -> bool:
    try:
        spelled = dotted if dotted.isascii() else idna.encode(dotted, uts46=True).decode()
    except idna.IDNAError:
        return False
    return spelled in _RESERVED or bool(_suffixes().is_public(spelled))


@cache
def _suffixes() -> PublicSuffixList:
    """The public suffix list as its package carries it: the registries' part, and nothing that is unknown."""
    return PublicSuffixList(accept_unknown=False, only_icann=True)
