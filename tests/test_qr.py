"""QR codes, read by an independent reader (zxing-cpp); SVG is drawn by an independent renderer (resvg) before."""

from __future__ import annotations

import io
import random
import sys

import pytest
import resvg_py
import segno
import zxingcpp
from PIL import Image

from goodanalytics import qr
from goodanalytics.errors import ConfigError, InvalidInput

LINK = "https://go.example/aB3_x-9?qr=1"
LENGTHS = (1, 12, 40, 90, 200, 255)
"""Of keys, from the shortest to the longest that a link may have."""


def noise(kind: str, width: int = 96, height: int = 96) -> qr.Logo:
    """The worst logo: every pixel is a colour of chance."""
    picture = Image.frombytes("RGB", (width, height), random.Random(1).randbytes(3 * width * height))
    written = io.BytesIO()
    picture.save(written, kind)
    return qr.logo_of(written.getvalue())


def shown(drawn: bytes, kind: str) -> Image.Image:
    if kind == "svg":
        drawn = resvg_py.svg_to_bytes(svg_string=drawn.decode())
    return Image.open(io.BytesIO(drawn))


def read(drawn: bytes, kind: str) -> list[str]:
    return [found.text for found in zxingcpp.read_barcodes(shown(drawn, kind).convert("L"))]


@pytest.mark.parametrize("kind", qr.FORMATS)
@pytest.mark.parametrize("correction", qr.CORRECTIONS)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_code_is_read(kind, correction, length):
    """Whatever the length of the key and the correction."""
    content = f"https://go.example/{'aB3_x-9' * 37}"[: 19 + length] + "?qr=1"

    assert read(qr.draw(content, kind, qr.Style(size=5, correction=correction)), kind) == [content]


@pytest.mark.parametrize("kind", qr.FORMATS)
@pytest.mark.parametrize("picture", ["PNG", "JPEG"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("size", [3, 12])
def test_a_code_with_a_logo_is_read(kind, picture, length, size):
    """Also when the logo is noise, the code is coloured, and the caller asked for the lowest correction."""
    content = f"https://go.example/{'aB3_x-9' * 37}"[: 19 + length] + "?qr=1"
    style = qr.Style(size=size, dark="7a1f5c", light="fff4d6", correction="low", logo=noise(picture))

    drawn = qr.draw(content, kind, style)

    assert read(drawn, kind) == [content]


@pytest.mark.parametrize("kind", qr.FORMATS)
def test_a_logo_raises_the_correction_to_the_highest(kind):
    """Whatever was asked for: the drawing is the same."""
    drawn = {qr.draw(LINK, kind, qr.Style(correction=c, logo=noise("PNG"))) for c in qr.CORRECTIONS}

    assert len(drawn) == 1
    modules = segno.make(LINK, error="h", micro=False).symbol_size(1, 4)[0]
    assert shown(drawn.pop(), kind).size == (modules * 10,) * 2


@pytest.mark.parametrize("length", [12, 90, 255])
@pytest.mark.parametrize("at", [(0.65, 0.65), (0.4, 0.75), (0.75, 0.4)])
def test_a_code_with_a_logo_can_be_stained_too(length, at):
    """The logo does not use up what the correction makes good: a tenth of the edge more may be lost."""
    content = f"https://go.example/{'aB3_x-9' * 37}"[: 19 + length] + "?qr=1"
    drawn = shown(qr.draw(content, "png", qr.Style(size=6, logo=noise("PNG"))), "png").convert("L")
    x, y, stain = int(at[0] * drawn.width), int(at[1] * drawn.height), drawn.width // 10

    drawn.paste(0, (x, y, x + stain, y + stain))

    assert [found.text for found in zxingcpp.read_barcodes(drawn)] == [content]


@pytest.mark.parametrize(("kind", "picture"), [("svg", "PNG"), ("png", "PNG"), ("png", "JPEG")])
def test_the_logo_is_in_the_middle(kind, picture):
    """It is seen there, in its proportions, and no wider than a quarter of the code."""
    red = Image.new("RGB", (200, 100), (255, 0, 0))
    written = io.BytesIO()
    red.save(written, picture)

    found = shown(qr.draw(LINK, kind, qr.Style(size=10, logo=qr.logo_of(written.getvalue()))), kind).convert(
        "RGB"
    )

    is_red = [
        (x, y) for x in range(found.width) for y in range(found.height)
        if (p := found.getpixel((x, y)))[0] > 200 and p[1] < 90
    ]  # fmt: skip
    xs, ys = [x for x, _ in is_red], [y for _, y in is_red]
    code = found.width - 80  # without its margin
    assert abs((min(xs) + max(xs)) / 2 - (found.width - 1) / 2) <= 1
    assert abs((min(ys) + max(ys)) / 2 - (found.height - 1) / 2) <= 1
    width, height = max(xs) - min(xs) + 1, max(ys) - min(ys) + 1
    assert 0.15 * code < width <= 0.25 * code
    assert width / height == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("kind", qr.FORMATS)
@pytest.mark.parametrize(("size", "margin"), [(1, 0), (1, 20), (2, 4), (10, 0), (10, 20), (50, 4)])
def test_a_code_has_the_size_that_was_asked_for(kind, size, margin):
    """Pixels of a module times modules, margins on both sides; all of them are read."""
    modules = segno.make(LINK, error="m", micro=False).symbol_size(1, 0)[0]

    drawn = qr.draw(LINK, kind, qr.Style(size=size, margin=margin))

    assert shown(drawn, kind).size == (size * (modules + 2 * margin),) * 2
    assert read(drawn, kind) == [LINK]


@pytest.mark.parametrize("kind", qr.FORMATS)
@pytest.mark.parametrize("width", [64, 333, 1000, 3000])
def test_a_code_has_the_width_that_was_asked_for(kind, width):
    """To the pixel, also where the modules do not go into it."""
    drawn = qr.draw(LINK, kind, qr.Style(width=width))

    assert shown(drawn, kind).size == (width, width)
    assert read(drawn, kind) == [LINK]


def test_colours_that_are_taken_are_read():
    """Of 3,000 pairs by chance each is refused or read; some of both."""
    chance = random.Random(5)
    taken = refused = 0
    for _ in range(3_000):
        dark, light = (f"{chance.getrandbits(24):06x}" for _ in range(2))
        try:
            style = qr.Style(dark=dark, light=light, size=3)
        except InvalidInput:
            refused += 1
            assert qr.contrast(dark, light) < qr.MIN_CONTRAST
            continue
        taken += 1
        assert read(qr.draw(LINK, "png", style), "png") == [LINK], (dark, light)
    assert taken > 100
    assert refused > 100


def test_the_colours_are_those_that_were_asked_for():
    """Nothing else is in the picture."""
    style = qr.Style(dark="#102A43", light="#F0F4F8")

    for kind in qr.FORMATS:
        found = shown(qr.draw(LINK, kind, style), kind).convert("RGB").getcolors()
        assert {colour for _, colour in found} == {(16, 42, 67), (240, 244, 248)}


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        pytest.param({"dark": "ffffff", "light": "000000"}, "dark", id="light on dark"),
        pytest.param({"dark": "777777"}, "", id="grey enough"),
        pytest.param({"dark": "999999"}, "dark", id="too light a grey"),
        pytest.param({"dark": "ffff00"}, "dark", id="yellow on white"),
        pytest.param({"light": "0000ff"}, "dark", id="black on blue"),
        pytest.param({"dark": "red"}, "dark", id="a name"),
        pytest.param({"light": "fff"}, "light", id="three digits"),
        pytest.param({"dark": "000000\n"}, "dark", id="a line break"),
        pytest.param({"dark": '"/><script>'}, "dark", id="markup"),
        pytest.param({"size": 0}, "size", id="no pixel"),
        pytest.param({"size": 51}, "size", id="huge modules"),
        pytest.param({"size": True}, "size", id="no number"),
        pytest.param({"margin": -1}, "margin", id="no margin at all"),
        pytest.param({"margin": 21}, "margin", id="nothing but margin"),
        pytest.param({"width": 3_001}, "width", id="a poster"),
        pytest.param({"correction": "H"}, "correction", id="another word"),
    ],
)
def test_a_style_that_would_not_scan_is_refused(wrong, where):
    """The error names the value."""
    if not where:
        assert qr.Style(**wrong)
        return
    with pytest.raises(InvalidInput) as refused:
        qr.Style(**wrong)

    assert refused.value.where == where


def test_a_picture_has_bounds():
    """50 pixels a module are fine for a short address and too many for a long one; the error says how many are not."""
    content = f"https://go.example/{'a' * 255}?qr=1"

    with pytest.raises(InvalidInput, match=r"Try size \d+") as refused:
        qr.draw(content, "png", qr.Style(size=50, correction="high"))

    size = int(str(refused.value).partition("Try size ")[2].partition(",")[0])
    assert qr.draw(content, "png", qr.Style(size=size, correction="high"))
    with pytest.raises(InvalidInput):
        qr.draw(content, "png", qr.Style(size=size + 1, correction="high"))
    with pytest.raises(InvalidInput, match="needs a pixel"):
        qr.draw(content, "png", qr.Style(width=32))
    with pytest.raises(InvalidInput, match="1 to 1000"):
        qr.draw("x" * 1_001)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "draw an SVG into a PNG", id="svg"),
        pytest.param(b"GIF89a\1\0\1\0", "neither a PNG nor a JPEG", id="gif"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "neither", id="the beginning of a png"),
        pytest.param(b"\xff\xd8\xff\xe0\xff\xff", "neither", id="the beginning of a jpeg"),
        pytest.param(b"\xff\xd8" + b"\xff" * 1_000, "neither", id="a jpeg of nothing"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0\0\xff\xff\0\0\xff\xff\x08\2\0\0\0" + b"\0" * 9,
            "65535 × 65535",
            id="a bomb",
        ),
        pytest.param(b"\x89PNG" + b"\0" * qr.MAX_LOGO_BYTES, "at most 262144", id="too many bytes"),
    ],
)
def test_a_file_that_is_no_logo_is_refused(data, reason):
    """By its bytes, not by its name; nothing is decoded before its size is known."""
    with pytest.raises(InvalidInput, match=reason):
        qr.logo_of(data)


def test_a_logo_that_breaks_off_is_refused_when_it_is_drawn():
    """Its header is whole and its pixels are not."""
    whole = noise("PNG")
    logo = qr.logo_of(whole.data[:200])

    with pytest.raises(InvalidInput, match="logo cannot be read"):
        qr.draw(LINK, "png", qr.Style(logo=logo))


def test_without_pillow_a_png_with_a_logo_says_what_to_install(monkeypatch):
    """All else works without it."""
    logo = noise("PNG")
    monkeypatch.setitem(sys.modules, "PIL", None)

    assert qr.draw(LINK, "png")
    assert qr.draw(LINK, "svg", qr.Style(logo=logo))
    with pytest.raises(ConfigError, match=r"goodanalytics\[qr\]"):
        qr.draw(LINK, "png", qr.Style(logo=logo))


def test_an_svg_is_well_formed_whatever_it_holds():
    """Its title is the content, escaped; nothing in it is a script or leads elsewhere."""
    import xml.etree.ElementTree as ET

    content = "https://go.example/a?b=\"<script>&'=1"
    drawn = qr.draw(content, "svg", qr.Style(logo=noise("PNG"))).decode()

    tree = ET.fromstring(drawn)
    assert tree.find("{*}title").text == content
    assert {element.tag.partition("}")[2] for element in tree.iter()} == {"svg", "title", "path", "image"}
    assert [name for e in tree.iter() for name in e.attrib if "href" in name] == ["href"]
    assert tree.find("{*}image").attrib["href"].startswith("data:image/png;base64,")


def test_the_entity_tag_changes_with_whatever_changes_the_picture():
    """And with nothing else."""
    styles = [
        qr.Style(), qr.Style(size=11), qr.Style(width=400), qr.Style(margin=5), qr.Style(dark="000001"),
        qr.Style(light="fffffe"), qr.Style(correction="high"), qr.Style(logo=noise("PNG")), qr.Style(logo=noise("JPEG")),
    ]  # fmt: skip
    tags = [
        qr.etag(content, kind, style)
        for style in styles
        for kind in qr.FORMATS
        for content in (LINK, LINK + "1")
    ]

    assert len(set(tags)) == len(tags)
    assert qr.etag(LINK, "svg", qr.Style(dark="#00000A")) == qr.etag(LINK, "svg", qr.Style(dark="00000a"))
    assert qr.draw(LINK, "png", styles[-2]) == qr.draw(LINK, "png", styles[-2])
