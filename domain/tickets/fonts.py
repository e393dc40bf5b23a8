"""The fonts that tickets are drawn with: where they are found, and which scripts of the world are covered.

What Latin, Greek and Cyrillic need is the system's DejaVu. Most other scripts and emoji come with a package
that is installed with Kassa's own, so that they are there wherever Kassa is; Chinese, Japanese and Korean,
which are large, are the system's: `fonts-wqy-microhei` on Debian, by apt or by Heroku's apt buildpack.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from xml.sax.saxutils import escape

# One character that names of each script are made of; none of them is in another's font.
SCRIPTS = {
    "Latin": "ü",
    "Cyrillic": "ж",
    "Arabic": "م",
    "Hebrew": "ש",
    "Devanagari": "अ",
    "Bengali": "ব",
    "Tamil": "த",
    "Thai": "ส",
    "Chinese": "张",
    "Japanese": "さ",
    "Korean": "김",
    "emoji": "🎉",
}
CJK = ("Chinese", "Japanese", "Korean")
CJK_PACKAGE = "fonts-wqy-microhei"
# The system's own settings first. Heroku's apt buildpack unpacks beneath the home directory.
_CONF = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <include ignore_missing="yes">/opt/homebrew/etc/fonts/fonts.conf</include>
  <include ignore_missing="yes">/usr/local/etc/fonts/fonts.conf</include>
  <dir>/usr/share/fonts</dir>
  <dir>/usr/local/share/fonts</dir>
  <dir>~/.apt/usr/share/fonts</dir>
  <dir>/app/.apt/usr/share/fonts</dir>
  <dir>{package}</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <!-- A document's search goes through every face, so those that no ticket uses are left out of it. -->
  <selectfont><rejectfont>
    <glob>*/DejaVuSerif*</glob>
    <glob>*/DejaVuSansCondensed*</glob>
    <glob>*/DejaVuMathTeXGyre*</glob>
    <glob>{package}/NotoSans[[]*</glob>
    <glob>{package}/NotoSans-Italic*</glob>
  </rejectfont></selectfont>
</fontconfig>
"""


def prepare() -> None:
    """Have the fonts found: to be called before anything loads fontconfig. Writes one small temporary file.

    Whoever set FONTCONFIG_FILE has chosen their own fonts, and is left alone.
    """
    if os.environ.get("FONTCONFIG_FILE"):
        return
    spec = find_spec("manimgx_fonts")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path("/nonexistent")
    handle, path = tempfile.mkstemp(prefix="kassa-fonts-", suffix=".conf")
    with os.fdopen(handle, "w") as file:
        file.write(_CONF.format(package=escape(str(folder))))
    os.environ["FONTCONFIG_FILE"] = path


def missing() -> list[str]:
    """The scripts of SCRIPTS that no font here can draw: their letters would be boxes on a ticket."""
    return [script for script, letter in SCRIPTS.items() if not files_with(letter)]


def files_with(letter: str) -> list[str]:
    """The paths of the fonts that can draw `letter`. Raises OSError where fontconfig is not installed."""
    prepare()
    library = _library()
    pattern, letters = library.FcPatternCreate(), library.FcCharSetCreate()
    wanted = library.FcObjectSetCreate()
    library.FcCharSetAddChar(letters, ord(letter))
    library.FcPatternAddCharSet(pattern, b"charset", letters)
    library.FcObjectSetAdd(wanted, b"file")
    found = library.FcFontList(None, pattern, wanted)
    try:
        return [_file(library, found.contents.fonts[n]) for n in range(found.contents.count)]
    finally:
        library.FcFontSetDestroy(found)
        library.FcObjectSetDestroy(wanted)
        library.FcCharSetDestroy(letters)
        library.FcPatternDestroy(pattern)


class _FontSet(ctypes.Structure):
    """fontconfig's FcFontSet."""

    _fields_ = (("count", ctypes.c_int), ("room", ctypes.c_int), ("fonts", ctypes.POINTER(ctypes.c_void_p)))


def _file(library: ctypes.CDLL, font: int) -> str:
    path = ctypes.c_char_p()
    library.FcPatternGetString(font, b"file", 0, ctypes.byref(path))
    return os.fsdecode(path.value or b"")


@cache
def _library() -> ctypes.CDLL:
    """fontconfig, which WeasyPrint draws with, and the shapes of the few calls that are made here."""
    library = ctypes.CDLL(ctypes.util.find_library("fontconfig") or "libfontconfig.so.1")
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name in ("FcPatternCreate", "FcCharSetCreate", "FcObjectSetCreate"):
        getattr(library, name).restype = pointer
    for name in ("FcObjectSetDestroy", "FcCharSetDestroy", "FcPatternDestroy"):
        getattr(library, name).argtypes = [pointer]
    library.FcCharSetAddChar.argtypes = [pointer, ctypes.c_uint32]
    library.FcPatternAddCharSet.argtypes = [pointer, text, pointer]
    library.FcObjectSetAdd.argtypes = [pointer, text]
    library.FcFontList.argtypes, library.FcFontList.restype = [pointer] * 3, ctypes.POINTER(_FontSet)
    library.FcFontSetDestroy.argtypes = [ctypes.POINTER(_FontSet)]
    library.FcPatternGetString.argtypes = [pointer, text, ctypes.c_int, ctypes.POINTER(text)]
    return library
