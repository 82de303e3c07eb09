"""The dashboard's page on which links move house, as a browser sees it: over ASGI, on real PostgreSQL."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from goodanalytics.web.dashboard import moving
from tests.web.link_site import make
from tests.web.test_dashboard import PAYLOADS, Page
from tests.web.test_dashboard_links import HOST, MORE_ELEMENTS, ROOT, Staff, filled, running, staff

__all__ = ["running", "staff"]

BITLY = (
    "Title,Long URL,Bitlink,Custom Bitlinks\n"
    "Spring,https://shop.example/,bit.ly/3xY,go.example/spring\n"
    "Bad,ftp://shop.example/,bit.ly/3xZ,go.example/bad\n"
)
ASKED = {"source": "bitly", "domain": "", "text": BITLY}


async def keys(running) -> list[str]:
    return [link.key for link in (await running.links.list(sort="key")).items]


def tiles(response: httpx.Response) -> dict[str, str]:
    found = re.findall(r"<dt>([^<]+)</dt><dd><span class=\"big\">([^<]+)</span>", response.text)
    return dict(found)


async def test_a_file_is_looked_at_before_it_is_brought_in(staff: Staff, running):
    """The first button only tells; the second one, of the page that told it, does it; and the history says from where."""
    looked = await staff.send("/links/move", {**ASKED, "do": "look"}, 200)
    before = await keys(running)
    form = filled(looked.text)
    done = await staff.send("/links/move", {**form, "do": "bring"}, 200)

    assert before == []
    assert tiles(looked) == {"Would come in": "1", "Were here already": "0", "Would be refused": "1"}
    assert "go.example/bad" in Page(looked.text).text
    assert "ftp://shop.example/" in Page(looked.text).text
    assert tiles(done) == {"Brought in": "1", "Were here already": "0", "Refused": "1"}
    assert await keys(running) == ["spring"]
    (link,) = (await running.links.list()).items
    assert [one.actor for one in (await running.links.history(link)).items] == ["dashboard"]
    again = await staff.send("/links/move", {**form, "do": "bring"}, 200)
    assert tiles(again) == {"Brought in": "0", "Were here already": "1", "Refused": "1"}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"text": BITLY.replace("spring", "summer")}, id="file"),
        pytest.param({"domain": "new.example"}, id="domain"),
        pytest.param({"seen": ""}, id="not looked at"),
    ],
)
async def test_what_was_not_looked_at_is_not_brought_in(staff: Staff, running, changed):
    """It is looked at now, and the page says why."""
    form = filled((await staff.send("/links/move", {**ASKED, "do": "look"}, 200)).text)

    answered = await staff.send("/links/move", {**form, **changed, "do": "bring"}, 200)

    assert "Nothing was brought in yet" in answered.text
    assert tiles(answered)["Would come in"] == "1"
    assert await keys(running) == []
    await staff.send("/links/move", {**filled(answered.text), "do": "bring"}, 200)
    assert len(await keys(running)) == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param({"source": ""}, "Say whose file it is", id="no source"),
        pytest.param({"source": "tinyurl"}, "Say whose file it is", id="unknown source"),
        pytest.param({"text": " \n"}, "There is nothing in it", id="no file"),
        pytest.param({"text": "a,b\n1,2\n"}, "no export of Bitly", id="another file"),
        pytest.param({"domain": "a b"}, "f-domain", id="domain"),
        pytest.param(
            {"text": "x" * (moving.MAX_FILE + 1)}, "goodanalytics links import FILE", id="too large"
        ),
        pytest.param(
            {"text": "," * (2 * moving.MAX_FILE)}, "goodanalytics links import FILE", id="far too large"
        ),
    ],
)
async def test_a_file_that_cannot_be_read_says_why_and_what_to_do(staff: Staff, running, given, reason):
    """On the page with the form, whichever button is pressed; nothing is brought in."""
    for button in ("look", "bring"):
        answered = await staff.send("/links/move", {**ASKED, **given, "do": button}, 400)
        assert 'role="alert"' in answered.text
        assert reason in answered.text
    assert await keys(running) == []


async def test_what_is_taken_out_is_brought_in_elsewhere(staff: Staff, running):
    """The download is the file that the form reads: here it finds everything there already."""
    partner = await running.partners.create(code="ada", name="Ada")
    await make(running, key="a", partner_id=partner.id)
    await running.links.set_domain("go.example", root_url="https://shop.example/")

    file = await staff.get("/links/export?format=jsonl")
    csv = await staff.get("/links/export?format=csv")
    looked = await staff.send(
        "/links/move", {"source": "goodanalytics", "text": file.text, "do": "look"}, 200
    )

    assert file.headers["content-disposition"].startswith('attachment; filename="links-')
    assert [json.loads(line)["kind"] for line in file.text.splitlines()] == [
        "goodanalytics", "link", "partner", "domain",
    ]  # fmt: skip
    assert len(csv.text.splitlines()) == 2
    assert tiles(looked) == {"Would come in": "0", "Were here already": "3", "Would be refused": "0"}
    assert 'value="bring"' not in looked.text
    assert f"{ROOT}/links/export?format=jsonl" in (await staff.page("/links/move")).links()
    assert (await staff.get("/links/export?format=exe", 400)).headers["content-type"].startswith("text/html")


async def test_only_our_own_page_brings_links_in(staff: Staff, running):
    """Another site's form is refused, as with every button."""
    for site in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
        await staff.send("/links/move", {**ASKED, "do": "bring"}, 403, **site)
    silent = await staff.client.post(f"{HOST}{ROOT}/links/move", data={**ASKED, "do": "bring"})

    assert silent.status_code == 403
    assert await keys(running) == []


async def test_a_hostile_file_stays_a_text(staff: Staff):
    """Whatever stands in its cells and columns makes no element and no attribute of its own."""
    cells = ['"' + one.replace('"', '""') + '"' for one in PAYLOADS]
    lines = [f"Title,Long URL,Bitlink,{cells[0]},{cells[2]}"]
    lines += [f"{one},{one},go.example/{n},1,2" for n, one in enumerate(cells)]
    lines += [f"x,https://a.example,{one},1,2" for one in cells]
    text = "\n".join(lines)

    answered = await staff.send(
        "/links/move", {"source": "bitly", "domain": "", "text": text, "do": "look"}, 200
    )

    found = Page(answered.text)
    assert {tag for tag, _ in found.elements} <= MORE_ELEMENTS
    names = {name for _, attrs in found.elements for name in attrs}
    assert {name for name in names if name.startswith("on") or name == "style"} == set()
    assert "49{%" not in found.text
    assert filled(answered.text)["text"].replace("\r\n", "\n") == text


async def test_a_long_report_is_cut_and_says_so(staff: Staff):
    """A page of ten thousand rows is of no use to anybody."""
    rows = "".join(f"T,ftp://a.example,bit.ly/{n},go.example/k{n}\n" for n in range(moving.MOST_SHOWN + 3))

    answered = await staff.send(
        "/links/move", {**ASKED, "text": BITLY.splitlines()[0] + "\n" + rows, "do": "look"}, 200
    )

    assert len(re.findall(r'data-label="What"', answered.text)) == moving.MOST_SHOWN
    assert "3 more rows are like this" in answered.text


async def test_the_list_of_links_leads_there(staff: Staff, running):
    """With links, and without any."""
    empty = await staff.page("/links")
    await make(running)
    full = await staff.page("/links")

    assert [f"{ROOT}/links/move" in page.links() for page in (empty, full)] == [True, True]
