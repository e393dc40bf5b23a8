"""Pictures for the demo's events, drawn from a few shapes, so that the repository carries no image files."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
# Drawn at twice the size that is kept: shrinking smooths the edges.
_WIDTH, _HEIGHT = 2400, 1350


def draw(name: str) -> bytes:
    """A poster as PNG, 1200 by 675; `name` is one of `NAMES`."""
    image = _MOTIFS[name]()
    out = BytesIO()
    image.resize((_WIDTH // 2, _HEIGHT // 2), Image.Resampling.LANCZOS).save(out, "PNG")
    return out.getvalue()


def _sky(*stops: Colour) -> Image.Image:
    """A vertical gradient through `stops`."""
    column = Image.new("RGB", (1, _HEIGHT))
    for y in range(_HEIGHT):
        place = y / _HEIGHT * (len(stops) - 1)
        low = min(int(place), len(stops) - 2)
        share = place - low
        mixed = [round(a + (b - a) * share) for a, b in zip(stops[low], stops[low + 1], strict=True)]
        column.putpixel((0, y), (mixed[0], mixed[1], mixed[2]))
    return column.resize((_WIDTH, _HEIGHT))


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _glow(image: Image.Image, spots: Sequence[tuple[float, float, float]], colour: Colour) -> None:
    """Light around `spots` (x, y, radius)."""
    veil = Image.new("L", (_WIDTH // 4, _HEIGHT // 4))
    pen = ImageDraw.Draw(veil)
    for x, y, radius in spots:
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(tuple(round(side / 4) for side in box), fill=190)
    veil = veil.filter(ImageFilter.GaussianBlur(28)).resize((_WIDTH, _HEIGHT))
    image.paste(Image.new("RGB", image.size, colour), mask=veil)


def _beam(image: Image.Image, corners: Sequence[tuple[float, float]]) -> None:
    """A cone of light."""
    veil = Image.new("L", (_WIDTH // 4, _HEIGHT // 4))
    ImageDraw.Draw(veil).polygon([(x / 4, y / 4) for x, y in corners], fill=130)
    soft = veil.filter(ImageFilter.GaussianBlur(5)).resize((_WIDTH, _HEIGHT))
    image.paste(Image.new("RGB", image.size, (255, 232, 170)), mask=soft)


def _ridge(
    pen: ImageDraw.ImageDraw, base: float, height: float, waves: float, phase: float, to: Colour
) -> None:
    """A rolling line of hills, dunes or waves, filled down to the bottom."""
    points = [
        (x, base - height * (math.sin(x / _WIDTH * math.tau * waves + phase) + math.sin(x / 331 + phase) / 4))
        for x in range(0, _WIDTH + 12, 12)
    ]
    pen.polygon([(0, _HEIGHT), *points, (_WIDTH, _HEIGHT)], fill=to)


def _lanterns() -> Image.Image:
    image = _sky((20, 16, 48), (58, 26, 72), (122, 44, 70))
    dice = random.Random(7)
    spots = [
        (160 + 210 * i + dice.randint(-40, 40), dice.randint(240, 860), dice.randint(62, 120))
        for i in range(11)
    ]
    _glow(image, [(x, y, radius * 2.1) for x, y, radius in spots], (255, 170, 70))
    pen = ImageDraw.Draw(image)
    for x, y, radius in spots:
        pen.line((x, 0, x, y - radius), fill=(214, 160, 120), width=4)
        pen.rounded_rectangle(
            (x - radius, y - radius * 1.2, x + radius, y + radius * 1.2), radius, fill=(255, 196, 92)
        )
        for step in (-0.62, -0.2, 0.2, 0.62):
            pen.line(
                (x - radius, y + radius * step * 1.4, x + radius, y + radius * step * 1.4),
                fill=(232, 130, 62),
                width=5,
            )
        pen.rectangle(
            (x - radius * 0.45, y - radius * 1.34, x + radius * 0.45, y - radius * 1.12), fill=(90, 36, 50)
        )
        pen.rectangle(
            (x - radius * 0.45, y + radius * 1.12, x + radius * 0.45, y + radius * 1.34), fill=(90, 36, 50)
        )
    for seat in range(26):
        _disc(pen, seat * 100 - 20, 1330 + (seat % 2) * 26, 78, (34, 14, 36))
    return image


def _dunes() -> Image.Image:
    image = _sky((24, 34, 82), (124, 54, 104), (244, 128, 86), (255, 204, 122))
    pen = ImageDraw.Draw(image)
    dice = random.Random(3)
    for _ in range(130):
        _disc(pen, dice.randint(0, _WIDTH), dice.randint(0, 520), dice.choice((2, 3, 5)), (255, 236, 208))
    _glow(image, [(1580, 770, 420)], (255, 226, 150))
    pen = ImageDraw.Draw(image)
    _disc(pen, 1580, 770, 270, (255, 240, 196))
    shades = ((196, 92, 66), (158, 64, 60), (112, 42, 56), (70, 26, 46))
    for number, shade in enumerate(shades):
        _ridge(pen, 880 + number * 125, 80 - number * 8, 1.2 + number * 0.55, number * 1.9, shade)
    # A double bass, alone on the last dune.
    wood, dune = (32, 14, 26), (112, 42, 56)
    pen.line((640, 520, 640, 1000), fill=wood, width=26)
    _disc(pen, 640, 905, 82, wood)
    _disc(pen, 640, 1040, 116, wood)
    _disc(pen, 545, 972, 34, dune)
    _disc(pen, 735, 972, 34, dune)
    _disc(pen, 640, 512, 26, wood)
    return image


def _brass() -> Image.Image:
    image = _sky((12, 70, 78), (8, 44, 58))
    pen = ImageDraw.Draw(image)
    rings = ((255, 204, 92), (226, 150, 44), (255, 222, 140), (190, 108, 30), (248, 184, 70), (122, 62, 22))
    for number in range(18):
        _disc(pen, 1720, 640, 980 - number * 54, rings[number % len(rings)])
    _disc(pen, 1720, 640, 60, (40, 20, 16))
    for line in range(5):
        y = 360 + line * 120
        pen.line([(x, y + 70 * math.sin(x / 330)) for x in range(0, 900, 20)], fill=(240, 226, 196), width=7)
    for x, y in ((170, 560), (400, 690), (640, 500), (800, 745)):
        _disc(pen, x, y, 52, (240, 226, 196))
        pen.line((x + 46, y, x + 46, y - 250), fill=(240, 226, 196), width=13)
    return image


def _night_train() -> Image.Image:
    image = _sky((14, 18, 30), (32, 30, 58))
    _beam(image, [(1440, 700), (_WIDTH, 380), (_WIDTH, 1080)])
    dice = random.Random(5)
    pen = ImageDraw.Draw(image)
    for _ in range(70):
        _disc(pen, dice.randint(0, _WIDTH), dice.randint(110, 320), dice.choice((2, 3, 4)), (220, 214, 232))
    pen.rounded_rectangle((-200, 330, 1500, 960), 130, fill=(150, 26, 46))
    pen.rectangle((-200, 800, 1500, 846), fill=(255, 200, 100))
    for window in range(6):
        left = 40 + window * 232
        pen.rounded_rectangle((left, 430, left + 176, 680), 26, fill=(255, 226, 160))
        pen.ellipse((left + 56, 530, left + 126, 610), fill=(70, 26, 46))
        pen.rectangle((left + 36, 600, left + 146, 680), fill=(70, 26, 46))
    for wheel in range(5):
        _disc(pen, 130 + wheel * 300, 985, 74, (20, 16, 26))
        _disc(pen, 130 + wheel * 300, 985, 28, (120, 110, 130))
    pen.rectangle((0, 1062, _WIDTH, 1350), fill=(12, 12, 20))
    pen.rectangle((0, 60, _WIDTH, 96), fill=(12, 12, 20))
    for hole in range(20):
        pen.rounded_rectangle((30 + hole * 122, 1140, 100 + hole * 122, 1260), 16, fill=(240, 226, 196))
    return image


def _paper() -> Image.Image:
    image = _sky((250, 238, 214), (246, 214, 182))
    pen = ImageDraw.Draw(image)
    _disc(pen, 1200, 560, 360, (208, 50, 44))
    layers = ((176, 206, 196), (112, 166, 162), (60, 118, 126), (32, 74, 92), (20, 44, 62))
    for number, shade in enumerate(layers):
        shadow = [max(0, part - 16) for part in shade]
        _ridge(
            pen, 792 + number * 118, 74, 1.5 + number * 0.4, number * 2.2, (shadow[0], shadow[1], shadow[2])
        )
        _ridge(pen, 806 + number * 118, 74, 1.5 + number * 0.4, number * 2.2, shade)
    for x, y, size in ((420, 330, 1.0), (640, 240, 0.7), (1900, 300, 0.9), (2100, 420, 0.6)):
        wing = [(-130, -60), (0, 0), (130, -60), (40, 40), (0, 110), (-40, 40)]
        pen.polygon(
            [(x + dx * size, y + dy * size) for dx, dy in wing], fill=(255, 252, 244), outline=(196, 170, 140)
        )
    for side in (0, _WIDTH):
        for fold in range(5):
            edge = fold * 52
            inner = side + (edge if side == 0 else -edge)
            outer = side + (edge + 52 if side == 0 else -edge - 52)
            pen.polygon(
                [(inner, 0), (outer, 0), (outer, 1350), (inner, 1350)],
                fill=((150, 26, 46), (122, 18, 40))[fold % 2],
            )
    return image


def _lighthouse() -> Image.Image:
    image = _sky((16, 40, 74), (30, 84, 116), (226, 150, 110))
    _beam(image, [(700, 420), (_WIDTH, 90), (_WIDTH, 620)])
    _beam(image, [(700, 420), (0, 250), (0, 560)])
    pen = ImageDraw.Draw(image)
    for band in range(6):
        top, bottom = 500 + band * 110, 610 + band * 110
        spread = 96 + band * 13
        colour = (246, 236, 220) if band % 2 else (190, 36, 48)
        pen.polygon(
            [(700 - spread, top), (700 + spread, top), (713 + spread, bottom), (687 - spread, bottom)],
            fill=colour,
        )
    pen.rectangle((560, 478, 840, 506), fill=(24, 28, 44))
    pen.rectangle((622, 372, 778, 478), fill=(255, 240, 180))
    pen.polygon([(596, 372), (804, 372), (700, 268)], fill=(150, 26, 46))
    _ridge(pen, 1130, 26, 0.9, 0.5, (34, 30, 44))
    for wave in range(4):
        _ridge(
            pen, 1190 + wave * 52, 14, 7 + wave, wave * 1.3, (20 + wave * 4, 70 - wave * 10, 104 - wave * 14)
        )
    return image


def _pier() -> Image.Image:
    image = _sky((28, 44, 72), (92, 84, 110), (232, 164, 120))
    _glow(image, [(1750, 640, 300)], (255, 214, 150))
    pen = ImageDraw.Draw(image)
    _disc(pen, 1750, 640, 120, (255, 226, 170))
    for wave in range(5):
        _ridge(pen, 800 + wave * 90, 12, 6 + wave, wave * 0.9, (36 + wave * 4, 66 - wave * 6, 96 - wave * 12))
    pen.polygon([(0, 900), (1500, 780), (1500, 820), (0, 990)], fill=(44, 30, 36))
    for post in range(9):
        x, top = 60 + post * 175, 895 - post * 14
        pen.rectangle((x, top, x + 34 - post * 2, _HEIGHT), fill=(36, 24, 30))
    for x, foot in ((560, 862), (900, 836)):
        pen.line([(x, foot), (x + 150, foot - 330)], fill=(248, 214, 130), width=16)
        pen.arc((x - 40, foot - 360, x + 190, foot - 90), 185, 330, fill=(248, 214, 130), width=18)
        for string in range(7):
            at = string / 7
            y = foot - 300 * at
            pen.line(
                [(x + 140 * at, y), (x + 20 + 130 * at, y - 160 * (1 - at) - 40)],
                fill=(255, 240, 200),
                width=4,
            )
    return image


def _mats() -> Image.Image:
    """Four mats in a hall, and a belt tied across them."""
    image = _sky((24, 46, 74), (56, 96, 128), (196, 206, 196))
    pen = ImageDraw.Draw(image)
    for column in range(4):
        left = 140 + column * 560
        colour = (214, 72, 58) if column % 2 else (36, 104, 168)
        pen.polygon([(left, 840), (left + 440, 840), (left + 520, 1240), (left - 80, 1240)], fill=colour)
        pen.polygon(
            [(left + 70, 890), (left + 370, 890), (left + 410, 1180), (left + 30, 1180)], fill=(236, 226, 204)
        )
    for side, slope in ((-1, 70), (1, -70)):
        end = _WIDTH / 2 + side * 900
        pen.line([(_WIDTH / 2, 460), (end, 400 + slope)], fill=(24, 22, 26), width=92)
        pen.line([(_WIDTH / 2, 470), (_WIDTH / 2 + side * 260, 760)], fill=(24, 22, 26), width=92)
        pen.line(
            [(_WIDTH / 2 + side * 206, 700), (_WIDTH / 2 + side * 236, 734)], fill=(226, 176, 70), width=96
        )
    pen.rounded_rectangle((_WIDTH / 2 - 120, 380, _WIDTH / 2 + 120, 560), 56, fill=(44, 40, 46))
    return image


_MOTIFS: dict[str, Callable[[], Image.Image]] = {
    "lanterns": _lanterns,
    "dunes": _dunes,
    "brass": _brass,
    "night-train": _night_train,
    "paper": _paper,
    "lighthouse": _lighthouse,
    "pier": _pier,
    "mats": _mats,
}
NAMES = tuple(_MOTIFS)
