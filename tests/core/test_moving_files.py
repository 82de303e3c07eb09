"""Files of links: what is read is what was written, and what cannot be read is said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core import moving_files
from goodanalytics.core.moving_files import ENCODINGS, Row, Writer, read, safe, unsafe
from goodanalytics.errors import InvalidInput

ROWS = [
    Row(2, {"url": "https://a.example", "title": "Zoë"}),
    Row(3, {"url": "https://b.example", "title": ""}),
]


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        pytest.param("url,title\nhttps://a.example,Zoë\nhttps://b.example,\n".encode(), "utf-8", id="plain"),
        pytest.param(
            "\ufeffurl,title\r\nhttps://a.example,Zoë\r\n\r\nhttps://b.example,".encode(), "utf-8", id="mark"
        ),
        pytest.param(
            "url;title\nhttps://a.example;Zoë\nhttps://b.example;\n".encode(), "utf-8", id="semicolons"
        ),
        pytest.param(
            "url\ttitle\nhttps://a.example\tZoë\nhttps://b.example\t\n".encode(), "utf-8", id="tabs"
        ),
        pytest.param(
            '"url","title"\n"https://a.example","Zoë"\n"https://b.example",""'.encode(), "utf-8", id="quotes"
        ),
        pytest.param(
            " url , title \nhttps://a.example,Zoë\nhttps://b.example,\n".encode(), "utf-8", id="blanks"
        ),
        pytest.param(
            "url,title\nhttps://a.example,Zoë\nhttps://b.example,\n".encode("utf-16"), "utf-16", id="utf-16"
        ),
        pytest.param(
            "url,title\nhttps://a.example,Zoë\nhttps://b.example,\n".encode("cp1252"),
            "windows-1252",
            id="latin",
        ),
    ],
)
def test_csv_is_read_however_a_spreadsheet_saved_it(data, encoding):
    """Rows without anything are passed over, and no cell is changed."""
    table = read(data, encoding)

    assert [row.values for row in table.rows] == [row.values for row in ROWS]
    assert list(table.columns) == ["url", "title"]


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        pytest.param('[{"a": 1}, {"a": 2}]', [], id="a list"),
        pytest.param('{"a": 1}\n{"a": 2}\n', [], id="lines"),
        pytest.param('{"total": 2, "limit": 10, "data": [{"a": 1}, {"a": 2}]}', [], id="kutt"),
        pytest.param(
            '{"total": 90, "limit": 2, "skip": 0, "data": [{"a": 1}, {"a": 2}]}',
            ["The file holds 2 of 90 links; export the other pages too"],
            id="one page of kutt",
        ),
        pytest.param(
            '{"shortUrls": {"data": [{"a": 1}, {"a": 2}], "pagination": {"totalItems": 1200, "currentPage": 1}}}',
            ["The file holds 2 of 1,200 links; export the other pages too"],
            id="one page of shlink",
        ),
        pytest.param(
            '{"links": {"link_1": {"a": 1}, "link_2": {"a": 2}}, "stats": {"total_links": 2}, "statusCode": "200"}',
            [],
            id="yourls",
        ),
        pytest.param('{"result": [{"a": 1}, {"a": 2}]}', [], id="yourls by the plugin"),
    ],
)
def test_json_is_read_however_an_api_wraps_it(text, notes):
    """The list is found, and a page that is not all is told."""
    table = read(text.encode())

    assert [row.values for row in table.rows] == [{"a": 1}, {"a": 2}]
    assert list(table.notes) == notes


def test_objects_within_objects_become_columns():
    """With dots; lists stay, and the order of the columns is that in which they are met."""
    table = read(b'[{"meta": {"until": 1, "x": {"y": {"z": {}}}}, "tags": [{"n": 1}], "e": {}}, {"b": 1}]')

    assert table.rows[0].values == {"meta.until": 1, "meta.x.y.z": {}, "tags": [{"n": 1}], "e": {}}
    assert list(table.columns) == ["meta.until", "meta.x.y.z", "tags", "e", "b"]


@pytest.mark.parametrize(
    ("data", "row", "complaint"),
    [
        (b"a,b\n1\n2,3\n", 2, "has 1 cells where the header has 2"),
        (b"a,b\n1,2,3\n", 2, "has 3 cells where the header has 2"),
        (b"a,b\n1," + b"x" * 70_000, 2, "has a cell of more than 65,536 characters"),
        (b'[{"a": 1}, 7]', 2, "is no object"),
        (b'{"a": 1}\n{"a": \n', 2, "is no JSON"),
        (b"[" + json.dumps({str(n): 1 for n in range(201)}).encode() + b"]", 1, "has 201 members"),
    ],
)
def test_a_row_that_is_wrong_does_not_sink_the_others(data, row, complaint):
    """It is there with its complaint, so that it can be told."""
    (found,) = [one for one in read(data).rows if one.complaint]

    assert (found.number, complaint in found.complaint) == (row, True), found


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b" \n ", "empty", id="blanks"),
        pytest.param(b'a,b\n"1,2\n3,4\n', "quote not closed", id="a quote that swallows the rest"),
        pytest.param(b"a,a\n1,2\n", "'a' is there twice", id="a column twice"),
        pytest.param(b",".join(b"c%d" % n for n in range(201)), "201 columns", id="too many columns"),
        pytest.param(b"a\n" + b"1\n" * 200_001, "more than 200,000", id="too many rows"),
        pytest.param(b"[" + b"1," * 200_000 + b"1]", "200,001 links", id="too many objects"),
        pytest.param(b"[" + b"{}," * 5_000_001 + b"{}]", "5,000,000 values", id="too many values"),
        pytest.param(b"x" * (64 * 1024 * 1024 + 1), "bytes", id="too many bytes"),
        pytest.param(b"[" * 100_000, "no JSON", id="lists in lists"),
        pytest.param(b'{"a":' * 100_000, "no JSON", id="objects in objects"),
        pytest.param(b"[1, 2", "no JSON", id="half a list"),
        pytest.param(b'"text"', "no column|no list|twice|", id="a text"),
        pytest.param(
            b"url,title\nhttps://a.example,Zo\xeb\n", r"byte 0xeb in line 2.*windows-1252", id="latin-1"
        ),
        pytest.param("a,b\n1,2\n".encode("utf-16-le"), "NUL", id="utf-16 without its mark"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "not utf-8", id="a picture"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(data, reason):
    """With where it is, and what to do."""
    if data == b'"text"':
        assert read(data).rows == []
        return
    with pytest.raises(InvalidInput, match=reason):
        read(data)


def test_an_unknown_encoding_is_refused():
    """Python knows a hundred, some of which are no encodings of text."""
    with pytest.raises(InvalidInput, match="encoding"):
        read(b"a", "zlib")
    assert "zlib" not in ENCODINGS


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", "\n=1", "'x", "''=1", "plain", ""]
)
def test_a_cell_that_a_spreadsheet_would_run_is_made_a_text(cell):
    """And reading our own file takes back what was added, no more."""
    written = safe(cell)

    assert not written.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unsafe(written) == cell


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@given(
    st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), max_size=5), st.sampled_from(["csv", "jsonl", "json"])
)
def test_what_is_written_is_read_back(rows, kind):
    """Whatever the cells hold: marks, line breaks, quotes, formulas."""
    writer = Writer(["a", "b"], kind)
    data = writer.start() + b"".join(writer.row({"a": a, "b": b}) for a, b in rows) + writer.end()

    if not data:
        assert rows == []
        return
    found = [tuple(row.values.values()) for row in read(data, is_ours=True).rows]
    assert found == rows


def test_values_that_are_no_texts_are_json_in_csv():
    """And nothing is an empty cell."""
    writer = Writer(["a", "b", "c", "d"], "csv")

    assert writer.row({"a": None, "b": True, "c": [1, "x"], "d": 3}) == b',true,"[1,""x""]",3\r\n'


def test_an_unknown_format_is_refused():
    """Before anything is written."""
    with pytest.raises(InvalidInput, match="csv"):
        Writer(["a"], "xml")
    assert moving_files.MAX_ROWS == 200_000
