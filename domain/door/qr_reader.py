"""Reading a QR code in a picture from a phone's camera, for browsers that cannot do it themselves."""

from __future__ import annotations

import io

import zxingcpp
from PIL import Image, UnidentifiedImageError

from domain.errors import DomainError

MAX_BYTES = 300 * 1024
# Phones send about a megapixel; anything larger is no frame of a viewfinder.
_MAX_PIXELS = 4_000_000
_FORMATS = ("JPEG", "PNG", "WEBP")
_QR = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)


def read(frame: bytes) -> str | None:
    """The text of the QR code in a JPEG, PNG or WebP; None where there is none to be read.

    DomainError when the picture is too large, or is none of these.
    """
    if len(frame) > MAX_BYTES:
        raise DomainError("frame_too_large", f"A picture may have at most {MAX_BYTES // 1024} KB.")
    try:
        with Image.open(io.BytesIO(frame), formats=_FORMATS) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise DomainError("frame_too_large", "That picture has too many pixels.")
            # Grey is all a code needs, and the decoder gets there without making the colours.
            picture.draft("L", picture.size)
            grey = picture.convert("L")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DomainError("frame_unreadable", "That is not a JPEG, PNG or WebP picture.") from error
    found = zxingcpp.read_barcodes(grey, formats=_QR, text_mode=zxingcpp.TextMode.Plain)
    return next((code.text for code in found if code.text), None)
