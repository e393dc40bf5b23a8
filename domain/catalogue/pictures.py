"""Uploaded pictures: checked, made smaller, and kept in the database, because a host's disk does not last.

Every picture is drawn anew from its pixels, so nothing that an upload may hide (metadata with a place in it,
a script behind the image) is ever served.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from threading import Lock

from PIL import Image, ImageOps, UnidentifiedImageError
from sqlalchemy import select
from sqlalchemy.orm import undefer

from domain import clock
from domain.errors import DomainError, NotFound
from extensions import db
from models import Picture

MAX_BYTES = 5 * 1024 * 1024
MAX_SIDE = 1600
# A small file can unpack to an enormous picture; more pixels than a phone's are refused unread.
MAX_PIXELS = 25_000_000
# WebP's decoder holds its picture four times over.
_MAX_PIXELS_WEBP = 12_000_000
# One at a time in a process: a picture without JPEG's shortcut unpacks to a hundred megabytes.
_unpacking = Lock()
# What a phone has to load of it: the first of these sides and qualities that fits, else the last.
_KEPT_BYTES = 64_000
_STEPS = ((MAX_SIDE, 84), (1280, 78), (1080, 72), (900, 66), (800, 58), (640, 50), (560, 40))
_PAPER = (248, 239, 224)


def store(data: bytes) -> Picture:
    """Keep a PNG, JPEG or WebP of at most 5 MB as a JPEG of at most 1600 pixels a side, and about 64 KB.

    The same picture is kept once. Flushes, does not commit. DomainError in words when it cannot be used.
    """
    encoded, width, height = _encode(data)
    sha256 = hashlib.sha256(encoded).hexdigest()
    known = db.session.scalar(select(Picture).filter_by(sha256=sha256))
    if known is not None:
        return known
    picture = Picture(
        content_type="image/jpeg",
        sha256=sha256,
        width=width,
        height=height,
        data=encoded,
        created_at=clock.now(),
    )
    db.session.add(picture)
    db.session.flush()
    return picture


def find(sha256: str) -> Picture:
    """The picture with its data. NotFound when there is none."""
    picture = db.session.scalar(select(Picture).filter_by(sha256=sha256).options(undefer(Picture.data)))
    if picture is None:
        raise NotFound("no_picture", "There is no such picture.")
    return picture


def _encode(data: bytes) -> tuple[bytes, int, int]:
    if len(data) > MAX_BYTES:
        raise DomainError("picture", "The picture is too large: at most 5 MB. Save it smaller and try again.")
    try:
        with _unpacking, Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as opened:
            most = _MAX_PIXELS_WEBP if opened.format == "WEBP" else MAX_PIXELS
            if opened.width * opened.height > most:
                words = f"The picture has too many pixels: at most {most // 1_000_000} million."
                raise DomainError("picture", f"{words} Save it smaller and try again.")
            image = _unpacked(opened)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DomainError("picture", "That is not a picture we can read. Use a PNG, JPEG or WebP.") from error
    flat = Image.new("RGB", image.size, _PAPER)
    flat.paste(image, mask=image.getchannel("A"))
    encoded = b""
    for side, quality in _STEPS:
        flat.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = BytesIO()
        flat.save(out, "JPEG", quality=quality, optimize=True, progressive=True)
        encoded = out.getvalue()
        if len(encoded) <= _KEPT_BYTES:
            break
    return encoded, flat.width, flat.height


def _unpacked(opened: Image.Image) -> Image.Image:
    """The picture at its final size, the right way up. Only a JPEG can be made smaller while it is read."""
    opened.draft("RGB", (MAX_SIDE, MAX_SIDE))
    # The orientation is among what the pixels leave behind.
    turn = opened.getexif()
    small = _reduced(opened, max(1, max(opened.size) // MAX_SIDE))
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    small.getexif().update(turn)
    return ImageOps.exif_transpose(small)


def _reduced(opened: Image.Image, factor: int) -> Image.Image:
    """The picture in colours, at 1/`factor` of its size, a band after the other: no second one in full."""
    width, height = opened.size
    small = Image.new("RGBA", (-(-width // factor), -(-height // factor)))
    rows = 256 * factor
    for top in range(0, height, rows):
        band = opened.crop((0, top, width, min(height, top + rows))).convert("RGBA")
        small.paste(band.reduce(factor), (0, top // factor))
    return small
