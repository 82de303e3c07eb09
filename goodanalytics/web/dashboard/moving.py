"""
The dashboard's page on which links move house: a file is looked at, brought in, or taken out.

Rules of this file
1. A file comes as text in a form's box, so that pasting does without a script; the page's script reads a chosen file into the box.
   `MAX_FILE` bounds it, and the command line takes more.
2. First it is only looked at. What is brought in then is exactly what was looked at: the button carries its digest, and another
   text is looked at again.
3. A report stands on the page that answers, for it is too long for an address. Sending the form again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from starlette.requests import Request
from starlette.responses import Response

from goodanalytics.core.moving_files import FileFormat
from goodanalytics.core.moving_own import OWN
from goodanalytics.core.moving_rivals import RIVALS
from goodanalytics.errors import InvalidInput
from goodanalytics.facade.links import Links
from goodanalytics.moving import Report
from goodanalytics.web.dashboard import asked as asking
from goodanalytics.web.dashboard import forms, rendering
from goodanalytics.web.dashboard.link_form import Form, in_plain
from goodanalytics.web.dashboard.links import ACTOR, Respond, asked_of, form_of, workspace_of
from goodanalytics.web.downloads import download

MAX_FILE: Final = 1024 * 1024  # bytes
MAX_FORM: Final = 3 * MAX_FILE + 64 * 1024  # bytes; a form writes one byte as up to three
MOST_SHOWN: Final = 25
"""Rows of each kind that the page tells of."""

TITLES: Final[Mapping[str, str]] = {
    "": "Choose …",
    **{name: rival.title for name, rival in RIVALS.items()},
    OWN: "GoodAnalytics",
}
"""Where links are brought from, as pages call it."""


@dataclass(frozen=True, slots=True)
class MovePages:
    """The pages on which the links of *links* come and go."""

    links: Links

    @property
    def routes(self) -> Sequence[tuple[str, Mapping[str, Respond]]]:
        """Each path with what answers each method; they belong before those of the links, whose ids would take theirs."""
        return (
            ("/links/move", {"GET": self.form, "POST": self.move}),
            ("/links/export", {"GET": self.export}),
        )

    async def form(self, request: Request) -> Response:
        """What can be brought in and taken out."""
        return self._page(request, Form({}))

    async def move(self, request: Request) -> Response:
        """Look at a file, or bring it in if it was looked at."""
        try:
            values = form_of(await forms.read(request, MAX_FORM))
        except InvalidInput:
            return self._page(request, Form({}, {"text": _TOO_LARGE}), status=400)
        form = Form(values, _errors(values))
        if form.errors:
            return self._page(request, form, status=400)
        wants_all = values.get("do") == "bring"
        was_seen = values.get("seen") == _digest(values)
        try:
            report = await self.links.import_(
                values["text"].encode(), values["source"], domain=values.get("domain", "").strip() or None,
                dry_run=not (wants_all and was_seen), actor=ACTOR, workspace_id=workspace_of(request, self.links.config),
            )  # fmt: skip
        except InvalidInput as error:
            name = "domain" if error.where == "domain" else "text"
            return self._page(request, Form(values, {name: in_plain(error)}), status=400)
        if report.is_dry_run:
            return self._page(request, form, report, is_changed=wants_all)
        return self._page(request, Form({}), report)

    async def export(self, request: Request) -> Response:
        """Everything about links as a file."""
        typed = asking.first_of(request.query_params.multi_items()).get("format", "jsonl")
        for kind in get_args(FileFormat):
            if typed == kind:
                pieces = self.links.export(kind, workspace_id=workspace_of(request, self.links.config))
                return await download(pieces, kind, self.links.config.clock())
        raise InvalidInput(
            f"{typed!r:.80} is not known. Use {', '.join(get_args(FileFormat))}", where="format"
        )

    def _page(
        self,
        request: Request,
        form: Form,
        report: Report | None = None,
        *,
        is_changed: bool = False,
        status: int = 200,
    ) -> Response:
        shown = {
            "asked": asked_of(request, self.links.config),
            "form": form,
            "report": report,
            "seen": _digest(form.values),
            "is_changed": is_changed,
            "TITLES": TITLES,
            "MAX_FILE": MAX_FILE,
            "MOST_SHOWN": MOST_SHOWN,
            "TOO_LARGE": _TOO_LARGE,
        }
        return rendering.page(request, "links_move.html", shown, status)


_TOO_LARGE: Final = "This is more than 1 MiB. Use the command line: goodanalytics links import FILE --from …"


def _errors(values: Mapping[str, str]) -> dict[str, str]:
    errors: dict[str, str] = {}
    if not values.get("source") or values["source"] not in TITLES:
        errors["source"] = "Say whose file it is."
    if not values.get("text", "").strip():
        errors["text"] = "There is nothing in it. Choose the file, or paste what stands in it."
    elif len(values["text"].encode()) > MAX_FILE:
        errors["text"] = _TOO_LARGE
    return errors


def _digest(values: Mapping[str, str]) -> str:
    """A name for what would be brought in; no secret (see `forms` for who may press a button)."""
    told = "\0".join(values.get(name, "").strip() for name in ("source", "domain", "text"))
    return hashlib.sha256(told.encode()).hexdigest()


__all__ = ["MAX_FILE", "MovePages"]
