"""A platform's API version has a last day, and whoever starts the app hears of it in time."""

from __future__ import annotations

from datetime import date

import pytest

from goodanalytics.platforms import Version


@pytest.mark.parametrize(
    ("sunset", "told"),
    [
        pytest.param(date(2026, 12, 1), "bell: API version v1 ends on 2026-12-01 (in 30 days)", id="soon"),
        pytest.param(date(2026, 10, 31), "bell: API version v1 ended on 2026-10-31", id="over"),
        pytest.param(date(2028, 1, 1), "", id="not for long"),
        pytest.param(None, "", id="not known"),
    ],
)
async def test_a_start_warns_of_a_version_that_ends(opened, bells, caplog, sunset, told):
    """With the day, and how to set a newer one."""
    await opened(bells["bell"](version=Version("v1", sunset)), worker=True)
    found = [record.getMessage() for record in caplog.records if "API version" in record.getMessage()]

    assert [message.removeprefix("goodanalytics: ").partition(". Set")[0] for message in found] == (
        [told] if told else []
    )
