"""
QR codes of short links as SVG and PNG: sizes, colours, and a logo that does not spoil them.

Rules of this file
1. What is drawn can be scanned, or it is refused: the modules are darker than the ground by `MIN_CONTRAST`, because many readers
   do not look for light codes on dark ground (ISO/IEC 18004, section 9.1), and around them is a margin.
2. A logo covers at most a quarter of the edge, so a sixteenth of the area, and the error correction is then the highest, which
   makes good 30 % (ISO/IEC 18004, table 8). It is centred on whole modules, upon the ground's colour.
3. A logo is a PNG or JPEG in bytes that the host gives. None is fetched. SVG is refused: it is a program with links of its own,
   and whoever opens the code would run it. In an SVG code the logo is a `data:` address; into a PNG code Pillow draws it.
4. The same content and style are the same bytes: that is what `etag` stands on.
5. Everything has bounds: `MAX_CONTENT`, `MAX_EDGE`, `MAX_LOGO_BYTES`, `MAX_LOGO_EDGE`. Drawing takes 5 to 50 ms of computing,
   so do it in a thread.

The codes themselves are segno's; its pictures are not used, because their edges are whole modules only and hold no logo.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Final, Literal, TypedDict, get_args

import segno

from goodanalytics.errors import ConfigError, InvalidInput
from goodanalytics.version import __version__

Format = Literal["svg", "png"]
Correction = Literal["low", "medium", "quartile", "high"]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
CORRECTIONS: Final[tuple[Correction, ...]] = get_args(Correction)

MAX_SIZE: Final = 50  # pixels of a module
MAX_MARGIN: Final = 20  # modules
MAX_EDGE: Final = 3_000  # pixels of the whole picture: 25 cm at 300 dpi
MIN_WIDTH: Final = 32  # pixels
MIN_CONTRAST: Final = 4.0
"""
How many times as bright as the modules the ground must be (WCAG 2.2, "contrast ratio", 1 to 21).

A camera sees less of the difference than there is, in bad light and on worn paper.
"""

MAX_CONTENT: Final = 1_000  # bytes; version 40 holds 1,273 with the highest correction
MAX_LOGO_BYTES: Final = 256 * 1024
MAX_LOGO_EDGE: Final = 1_024  # pixels
LOGO_SHARE: Final = 0.25  # of the edge without margin

_COLOUR = re.compile(r"#?[0-9A-Fa-f]{6}")
_JPEG_SIZES = frozenset({*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
"""Markers of a JPEG that start a frame and tell its size (ITU-T T.81, table B.1)."""


@dataclass(frozen=True, slots=True)
class Logo:
    """
    A picture for the middle of a code; `logo_of` makes one of bytes.

    Attributes:
        kind: `png` or `jpeg`.
        width, height: In pixels.
    """

    kind: Literal["png", "jpeg"]
    width: int
    height: int
    data: bytes


class StyleFields(TypedDict, total=False):
    """How a code looks, besides its logo; see `Style`."""

    size: int
    width: int | None
    margin: int
    dark: str
    light: str
    correction: Correction


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """
    How a code looks.

    Attributes:
        size: Pixels of a module, 1 to 50.
        width: Pixels of the whole picture, 32 to 3,000; overrules *size*. What is left over widens the margin of a PNG.
        margin: Modules around the code, 0 to 20. Readers want 4; give less only on a page that is as light as the ground.
        dark, light: Six hexadecimal digits, of the modules and of the ground.
        correction: How much of a damaged code is made good: about 7, 15, 25 or 30 %. Raised by itself where it costs no room.
        logo: Raises *correction* to high.
    """

    size: int = 10
    width: int | None = None
    margin: int = 4
    dark: str = "000000"
    light: str = "ffffff"
    correction: Correction = "medium"
    logo: Logo | None = None

    def __post_init__(self) -> None:
        """Check every value and bring it into its one form."""
        _within("size", self.size, 1, MAX_SIZE)
        _within("margin", self.margin, 0, MAX_MARGIN)
        if self.width is not None:
            _within("width", self.width, MIN_WIDTH, MAX_EDGE)
        for name in ("dark", "light"):
            value = getattr(self, name)
            if not isinstance(value, str) or not _COLOUR.fullmatch(value):
                raise InvalidInput(
                    f"{name} is {value!r}; give a colour of six hexadecimal digits such as 1a2b3c", where=name
                )
            object.__setattr__(self, name, value.removeprefix("#").lower())
        if self.correction not in CORRECTIONS:
            raise InvalidInput(
                f"correction is {self.correction!r}; use {', '.join(CORRECTIONS)}", where="correction"
            )
        ratio = contrast(self.dark, self.light)
        if ratio < MIN_CONTRAST:
            raise InvalidInput(
                f"dark {self.dark} on light {self.light} has a contrast of {ratio:.1f} and would not scan; "
                f"the modules must be darker than the ground, by at least {MIN_CONTRAST:g}",
                where="dark",
            )


def draw(content: str, kind: Format = "svg", style: Style | None = None) -> bytes:
    """
    The code of *content*.

    Raises:
        InvalidInput: *content* is too long, or the picture would be larger than `MAX_EDGE`.
        ConfigError: A PNG with a logo is wanted and Pillow is not installed.
    """
    style = style or Style()
    rows = _rows(content, "high" if style.logo else style.correction)
    if kind == "svg":
        return _svg(rows, content, style)
    if kind == "png":
        return _png(rows, style)
    raise InvalidInput(f"format is {kind!r}; use {' or '.join(FORMATS)}", where="format")


def etag(content: str, kind: Format, style: Style) -> str:
    """The entity tag of `draw(content, kind, style)`, without drawing it."""
    logo = b"" if style.logo is None else hashlib.sha256(style.logo.data).digest()
    told = (
        kind, style.size, style.width, style.margin, style.dark, style.light, style.correction, content,
        __version__, segno.__version__,
    )  # fmt: skip
    return f'"{hashlib.sha256(repr(told).encode() + logo).hexdigest()[:32]}"'


def contrast(dark: str, light: str) -> float:
    """
    How many times as bright *light* is as *dark*, both with a little stray light; below 1 where it is darker.

    >>> round(contrast("000000", "ffffff"))
    21
    """
    return (_luminance(light) + 0.05) / (_luminance(dark) + 0.05)


def logo_of(data: bytes) -> Logo:
    """
    A logo of the bytes of a PNG or JPEG.

    Raises:
        InvalidInput: It is something else, or larger than `MAX_LOGO_BYTES` or `MAX_LOGO_EDGE`.
    """
    if len(data) > MAX_LOGO_BYTES:
        raise InvalidInput(f"logo has {len(data)} bytes; at most {MAX_LOGO_BYTES} are taken", where="logo")
    found = _read_png(data) or _read_jpeg(data)
    if found is None:
        raise InvalidInput(
            "logo is neither a PNG nor a JPEG that can be read; draw an SVG into a PNG first", where="logo"
        )
    if not (0 < found.width <= MAX_LOGO_EDGE and 0 < found.height <= MAX_LOGO_EDGE):
        raise InvalidInput(
            f"logo has {found.width} × {found.height} pixels; at most {MAX_LOGO_EDGE} × {MAX_LOGO_EDGE} are taken",
            where="logo",
        )
    return found


def _within(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidInput(f"{name} is {value!r}; give a whole number from {least} to {most:,}", where=name)


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2): 0 for black, 1 for white."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@lru_cache(maxsize=256)
def _rows(content: str, correction: Correction) -> tuple[bytes, ...]:
    """The modules, 1 for dark, a row each, without margin."""
    if not content or len(content.encode()) > MAX_CONTENT:
        raise InvalidInput(
            f"A QR code of {len(content.encode())} bytes is asked for; it holds 1 to {MAX_CONTENT}",
            where="content",
        )
    code = segno.make(content, error=correction[0], micro=False)
    return tuple(bytes(row) for row in code.matrix)


def _edge(modules: int, style: Style) -> int:
    """Pixels of the whole picture, *modules* with margin."""
    edge = modules * style.size if style.width is None else style.width
    if edge > MAX_EDGE:
        raise InvalidInput(
            f"size {style.size} makes {edge:,} pixels of this code's {modules} modules; the most is {MAX_EDGE:,}. "
            f"Try size {MAX_EDGE // modules}, or SVG's own scaling",
            where="size",
        )
    return edge


def _logo_box(modules: int) -> int:
    """Modules of the edge of the square that a logo covers: odd, as a code's edge is, so that it lies on whole modules."""
    covered = int(modules * LOGO_SHARE)
    return covered if covered % 2 else covered - 1


def _svg(rows: tuple[bytes, ...], content: str, style: Style) -> bytes:
    whole = len(rows) + 2 * style.margin
    edge = _edge(whole, style)
    path: list[str] = []
    for y, row in enumerate(rows, style.margin):
        for run in re.finditer(rb"\x01+", row):
            n = run.end() - run.start()
            path.append(f"M{run.start() + style.margin} {y}h{n}v1h-{n}z")
    drawn = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{edge}" height="{edge}" viewBox="0 0 {whole} {whole}" '
        f'role="img" shape-rendering="crispEdges"><title>{escape(content)}</title>'
        f'<path fill="#{style.light}" d="M0 0h{whole}v{whole}H0z"/><path fill="#{style.dark}" d="{"".join(path)}"/>'
    )
    if style.logo is not None:
        box = _logo_box(len(rows))
        start = (whole - box) / 2
        drawn += (
            f'<path fill="#{style.light}" d="M{start:g} {start:g}h{box}v{box}h-{box}z"/>'
            f'<image x="{start + 0.5:g}" y="{start + 0.5:g}" width="{box - 1}" height="{box - 1}" '
            f'href="data:image/{style.logo.kind};base64,{base64.b64encode(style.logo.data).decode()}"/>'
        )
    return f"{drawn}</svg>\n".encode()


def _png(rows: tuple[bytes, ...], style: Style) -> bytes:
    """A PNG of one bit a pixel and two colours (W3C PNG, third edition); Pillow draws the logo upon it."""
    whole = len(rows) + 2 * style.margin
    edge = _edge(whole, style)
    scale = edge // whole
    if scale < 1:
        raise InvalidInput(
            f"width is {edge}; this code has {whole} modules with its margin and needs a pixel for each",
            where="width",
        )
    before = (edge - len(rows) * scale) // 2
    behind = edge - len(rows) * scale - before
    fill = -edge % 8

    def line(modules: str) -> bytes:
        return b"\0" + (int(modules + "0" * fill, 2)).to_bytes((edge + fill) // 8, "big")

    empty = line("0" * edge)
    body = b"".join(
        line("0" * before + "".join("01"[module] * scale for module in row) + "0" * behind) * scale
        for row in rows
    )
    picture = b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", edge, edge, 1, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes.fromhex(style.light + style.dark)),
            _chunk(b"IDAT", zlib.compress(empty * before + body + empty * behind, 9)),
            _chunk(b"IEND", b""),
        )
    )
    if style.logo is None:
        return picture
    box = _logo_box(len(rows)) * scale
    return _with_logo(picture, style.logo, style.light, before + (len(rows) * scale - box) // 2, box, scale)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _with_logo(picture: bytes, logo: Logo, light: str, start: int, box: int, scale: int) -> bytes:
    """*picture* with *logo* in a square of *box* pixels that starts at *start*, half a module away from its edge."""
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  # an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            "A logo in a PNG needs Pillow, which is not installed. Run: pip install 'goodanalytics[qr]', or ask for SVG"
        ) from error
    room = max(1, box - scale)
    try:
        with Image.open(io.BytesIO(logo.data), formats=[logo.kind.upper()]) as found:
            shown = found.convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InvalidInput(f"logo cannot be read: {error}", where="logo") from error
    factor = room / max(shown.size)
    width, height = (max(1, round(side * factor)) for side in shown.size)
    shown = shown.resize((width, height), Image.Resampling.LANCZOS)
    with Image.open(io.BytesIO(picture), formats=["PNG"]) as plain:
        canvas = plain.convert("RGB")
    canvas.paste(f"#{light}", (start, start, start + box, start + box))
    canvas.paste(shown, (start + (box - width) // 2, start + (box - height) // 2), shown)
    drawn = io.BytesIO()
    canvas.save(drawn, "PNG", optimize=False, compress_level=6)
    return drawn.getvalue()


def _read_png(data: bytes) -> Logo | None:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height = struct.unpack(">II", data[16:24])
    return Logo("png", width, height, data)


def _read_jpeg(data: bytes) -> Logo | None:
    """The size stands in the first frame, behind segments that tell their own length (ITU-T T.81, annex B)."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _JPEG_SIZES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return Logo("jpeg", width, height, data)
        if marker == 0xFF:  # filling before a marker
            at += 1
        else:
            at += 2 + max(length, 2)
    return None


__all__ = [
    "CORRECTIONS",
    "FORMATS",
    "MAX_EDGE",
    "MIN_CONTRAST",
    "Correction",
    "Format",
    "Logo",
    "Style",
    "StyleFields",
    "contrast",
    "draw",
    "etag",
    "logo_of",
]
