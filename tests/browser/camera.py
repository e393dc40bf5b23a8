"""QR codes as cameras see them: reading them from pictures, and showing them to Chromium's fake camera."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import zxingcpp
from PIL import Image

WIDTH, HEIGHT = 640, 480
_GREY = 200
_FRAMES = 5


def read(png: bytes) -> str:
    """The text of the QR code in a screenshot."""
    with Image.open(io.BytesIO(png)) as picture:
        found = zxingcpp.read_barcodes(picture.convert("L"))
    assert len(found) == 1, f"{len(found)} codes are in the picture"
    return str(found[0].text)


@dataclass
class Camera:
    """The film that Chromium plays as its camera's picture; it is read when a page starts the camera."""

    path: Path

    def __post_init__(self) -> None:
        self._film(Image.new("L", (WIDTH, HEIGHT), _GREY))

    def show(self, png: bytes) -> None:
        """Hold a picture before the camera, a little askew as by hand."""
        view = Image.new("L", (WIDTH, HEIGHT), _GREY)
        with Image.open(io.BytesIO(png)) as picture:
            side = HEIGHT * 2 // 3
            held = picture.convert("L").resize((side, side)).rotate(4, expand=True, fillcolor=_GREY)
        view.paste(held, ((WIDTH - held.width) // 2, (HEIGHT - held.height) // 2))
        self._film(view)

    def _film(self, view: Image.Image) -> None:
        """Uncompressed video: a header, then for each frame the brightness and two planes of no colour."""
        planes = view.tobytes() + bytes([128]) * (WIDTH * HEIGHT // 2)
        header = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420\n".encode()
        self.path.write_bytes(header + (b"FRAME\n" + planes) * _FRAMES)
