"""Tickets in every script: no name is drawn as boxes, and none costs the others anything."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from fontTools.ttLib import TTFont
from pypdf import PdfReader

from domain.tickets import documents, fonts
from models import Order
from tests.support.shop import make_event, place

NAMES = (
    "张伟 美国",
    "さくら 花子 カフェ",
    "김철수 모임",
    "สมชาย ใจดี",
    "अमित शर्मा",
    "বাংলা সন্ধ্যা",
    "தமிழ் இரவு",
    "తెలుగు ಕನ್ನಡ മലയാളം",
    "ગુજરાતી ਪੰਜਾਬੀ ଓଡ଼ିଆ සිංහල",
    "محمد علي",
    "יוסי כהן",
    "Հայաստան საქართველო አማርኛ",
    "ភាសាខ្មែរ ລາວ မြန်မာ",
    "Ελλάδα Київ Ёлка",
    "🎉 Party 🥳 👩‍🚀 ❤️",
)


def boxes(order: Order, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What WeasyPrint says of letters that it could not draw on the order's tickets."""
    caplog.clear()
    documents.tickets_pdf(order)
    return [line for line in caplog.messages if ".notdef" in line]


def ordered(name: str) -> Order:
    """A paid order of somebody of this name, for an event of this name."""
    event = make_event(title=name, price_minor=0)
    return place(event, name=name)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_letters_and_no_boxes(app: Flask, caplog: pytest.LogCaptureFixture, name: str) -> None:
    assert boxes(ordered(name), caplog) == []


def test_a_box_is_noticed(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """Egyptian hieroglyphs are in no font here: else the tests above would prove nothing."""
    assert not fonts.files_with("𓀀")
    assert boxes(ordered("𓀀𓀁"), caplog)


def test_every_script_has_a_font(app: Flask) -> None:
    assert fonts.missing() == []


def test_fonts_are_found_where_heroku_s_apt_puts_them(app: Flask, tmp_path: Path) -> None:
    (folder := tmp_path / ".apt" / "usr" / "share" / "fonts").mkdir(parents=True)
    font = TTFont(fonts.files_with("ណ")[0])
    font.save(folder / "Own.ttf")
    script = "from domain.tickets import fonts; print(*fonts.files_with('ណ'), sep='\\n')"
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=Path(documents.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(folder / "Own.ttf") in told.stdout.splitlines()


def test_what_is_missing_is_named(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    from domain.office import doctor

    monkeypatch.setitem(fonts.SCRIPTS, "Korean", "𓀀")
    finding = doctor._fonts()
    assert finding.state == doctor.WARN
    assert "Korean" in finding.words
    assert fonts.CJK_PACKAGE in finding.fix


def test_a_ticket_in_latin_letters_holds_one_family(app: Flask) -> None:
    reader = PdfReader(io.BytesIO(documents.tickets_pdf(ordered("Anna Müller"))))
    names = {name for page in reader.pages for name in page._get_fonts()[0]}
    assert names
    assert all("DejaVu" in name for name in names), names
