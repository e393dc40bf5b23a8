"""How soon a password is guessed: by what leaked, words, names, dates and keys, on whichever keyboard.

zxcvbn's lists are in Latin letters, and mostly English. Whoever guesses here knows, too, that people type
`пароль` on the Latin keyboard (`gfhjkm`), a Latin row of keys on the Cyrillic one (`йцукен`), and either as
it sounds (`parol`). So a password is read in each of these ways, and the weakest reading counts. Words of
Russian and Kazakh are a package's, by how common they are; months, days, countries and cities are Unicode's
(CLDR, which Babel brings).
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata

from babel import Locale

# What begins well enough is good: weighing a long text takes long.
_WEIGHED = 32
# Signs that stand for letters are tried in every way together: with many kinds of them it takes seconds, and
# nobody writes a word with so many.
_STAND_FOR_LETTERS = frozenset("4@8({[<369!1|0$5+7%2")
_MOST_KINDS = 7
# zxcvbn's list of recent years ends in 2019. What it thinks of that year goes for these.
_RECENT = re.compile(r"20[2-4]\d")
_LANGUAGES = ("ru", "kk")
# Of a language's words so many, the most common: a rarer one is a good part of a password.
_MOST_WORDS = 20_000
# Seats of Kazakhstan's regions that CLDR, which knows cities as names of time zones, has not.
_CITIES = "astana shymkent karaganda pavlodar semey taraz kokshetau petropavl turkestan taldykorgan konaev"
_WORD = re.compile(r"[^\W_]+")

# The letters of a keyboard in Russian and Kazakh, and what the same keys say in Latin.
_KEYS = str.maketrans("йцукенгшщзхъфывапролджэячсмитьбюё", "qwertyuiop[]asdfghjkl;'zxcvbnm,.`")
_KAZAKH_KEYS = str.maketrans("әіңғүұқөһ", "2345890-=")
_BACK_KEYS = {latin: letter for letter, latin in _KEYS.items()}
_SOUNDS = str.maketrans(
    dict(zip("абвгдезиклмнопрстуфыэ", "abvgdeziklmnoprstufye", strict=True))
    | {"ё": "e", "ж": "zh", "й": "i", "х": "h", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "sch", "ъ": "", "ь": ""}
    | {"ю": "yu", "я": "ya", "ә": "a", "ғ": "g", "қ": "k", "ң": "n", "ө": "o", "ұ": "u", "ү": "u", "һ": "h"}
    | {"і": "i"}
)
# Letters of one alphabet that look like those of the other.
_ALIKE = str.maketrans("асеорхуктмвні", "aceopxyktmbhi")
_CYRILLIC, _LATIN = re.compile("[\u0400-\u04ff]"), re.compile("[a-z]")


def guesses(text: str, known: Iterable[str]) -> float:
    """How many guesses lie before a password, as a power of ten. `known` are words that a stranger knows."""
    # Its lists take memory, and a worker never needs them.
    from zxcvbn import matching, scoring

    # Its own front door writes the words into what all threads share.
    lists = {**matching.RANKED_DICTIONARIES, **_lists(), "known": matching.build_ranked_dict(known)}
    plain = (matching.dictionary_match, matching.reverse_dictionary_match, matching.spatial_match)
    quick = (*plain, matching.sequence_match, matching.regex_match, matching.date_match)
    least = float(_WEIGHED)
    for reading in readings(text):
        begin = _RECENT.sub("2019", reading[:_WEIGHED])
        if begin.isdecimal() or len(_STAND_FOR_LETTERS.intersection(begin)) <= _MOST_KINDS:
            matches = matching.omnimatch(begin, lists)
        else:
            found = [match for matcher in quick for match in matcher(begin, _ranked_dictionaries=lists)]
            matches = sorted(found, key=lambda match: (match["i"], match["j"]))
        least = min(least, scoring.most_guessable_match_sequence(begin, matches)["guesses_log10"])
    return least


def least_own(text: str, known: Iterable[str]) -> int:
    """How many signs are the owner's: letters and digits of no known word, and kinds of other signs."""
    words = list(known)
    return min(_own(reading, words) for reading in readings(text))


def words_of(texts: Iterable[str]) -> list[str]:
    """The words in these texts, however they are written, the longest first, and texts without their gaps."""
    found = set()
    for text in texts:
        for reading in _spelled(text.lower()):
            parts = [part for part in _WORD.findall(reading) if len(part) > 2]
            found |= {*parts, "".join(parts)}
    return sorted(found - {"", "https", "http", "www"}, key=lambda word: (-len(word), word))


def readings(text: str) -> tuple[str, ...]:
    """What a password may be meant as, in small letters: itself first."""
    text = text.lower()
    found = [*_spelled(text)]
    if _CYRILLIC.search(text):
        found.append(text.translate(_KEYS).translate(_KAZAKH_KEYS))
        if _LATIN.search(text):
            found.append(text.translate(_ALIKE))
    elif _LATIN.search(text):
        found.append(text.translate(_BACK_KEYS).translate(_SOUNDS))
        # As Kazakh is written in Latin letters.
        found.append(text.replace("q", "k"))
    return tuple(dict.fromkeys(found))


def _spelled(text: str) -> Iterator[str]:
    """A text as it is, without accents, and as it sounds in Latin letters."""
    yield text
    if text.isascii():
        return
    plain = "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))
    yield plain
    if _CYRILLIC.search(text):
        yield text.translate(_SOUNDS)
        yield text.replace("й", "y").translate(_SOUNDS)


def _own(text: str, known: list[str]) -> int:
    for word in known:
        text = text.replace(word, " ")
    plain = "".join(_WORD.findall(text))
    return len(plain) + len(set(text) - set(plain) - {" "})


@cache
def _lists() -> dict[str, dict[str, int]]:
    """Words by how common they are, each as it sounds, for every reading is in Latin letters.

    About 26,000, and four megabytes.
    """
    return {
        **{name: _ranked(_common(name)) for name in _LANGUAGES},
        "calendar_and_places": _ranked([*_CITIES.split(), *(_named(name) for name in _LANGUAGES)]),
    }


def _ranked(words: Iterable[str | Iterator[str]]) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for found in words:
        for word in (found,) if isinstance(found, str) else found:
            sound = word.lower().translate(_SOUNDS)
            if len(sound) > 2:
                ranks.setdefault(sound, len(ranks) + 1)
    return ranks


def _common(language: str) -> Iterator[str]:
    path = metadata.distribution("wordninja-pp").locate_file(f"wordninja/{language}_words.txt.gz")
    with gzip.open(str(path), "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number == _MOST_WORDS:
                return
            yield line.strip()


def _named(language: str) -> Iterator[str]:
    """Months, days, countries, languages, currencies and cities."""
    locale = Locale(language)
    for names in (locale.months["stand-alone"]["wide"], locale.days["stand-alone"]["wide"]):
        yield from names.values()
    for named in (locale.territories, locale.languages, locale.currencies):
        yield from ("".join(_WORD.findall(name)) for name in named.values())
    for zone in locale.time_zones.values():
        yield "".join(_WORD.findall(zone.get("city", "")))
