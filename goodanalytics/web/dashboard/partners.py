"""
The dashboard's pages about partners: the list, the form, and the page of each with their figures and their ledger.

Rules of this file
1. Everything goes through `analytics.partners`, as a host's own code would; a review then names `ACTOR`.
2. A form that is refused comes back as it was typed, with every reason beside its field. Only what was changed is written, and
   nothing over what somebody else changed meanwhile without saying so.
3. Figures are of the chosen period; the ledger is whole, the latest entries first.
4. The filters of the reports mean nothing to the figures of a partner, so these pages drop them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from goodanalytics.core.bounds import text
from goodanalytics.core.partners import Partner
from goodanalytics.errors import Conflict, InvalidInput, NotFound
from goodanalytics.facade.partners import Partners
from goodanalytics.store.partners import IdTaken
from goodanalytics.web.dashboard import asked as asking
from goodanalytics.web.dashboard import forms, partner_form, partner_words, rendering
from goodanalytics.web.dashboard.asked import Asked
from goodanalytics.web.dashboard.link_form import Form, in_plain
from goodanalytics.web.dashboard.links import UNKNOWN_PARTNER, Respond, asked_of, form_of, workspace_of

ACTOR: Final = "dashboard"
PARTNERS_ON_PAGE: Final = 50
ENTRIES_ON_PAGE: Final = 25
LEDGER: Final = ("status", "kind", "after")
"""The parameters that choose what of the ledger is shown."""

Chosen = TypeVar("Chosen", bound=str)


@dataclass(frozen=True, slots=True)
class PartnerPages:
    """The pages of *partners*."""

    partners: Partners

    @property
    def routes(self) -> Sequence[tuple[str, Mapping[str, Respond]]]:
        """Each path with what answers each method."""
        return (
            ("/partners", {"GET": self.list}),
            ("/partners/new", {"GET": self.new, "POST": self.create}),
            ("/partners/{partner_id}", {"GET": self.partner}),
            ("/partners/{partner_id}/edit", {"GET": self.edit, "POST": self.save}),
            ("/partners/{partner_id}/status", {"POST": self.stand}),
            ("/partners/{partner_id}/commissions/{commission_id}", {"POST": self.review}),
        )

    # Reading ---------------------------------------------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        """Partners with their figures, searched and chosen by status."""
        asked, typed = self._asked(request), _typed(request)
        search, after = text(typed.get("search")), typed.get("after") or None
        status = _one_of(partner_words.STANDINGS, typed.get("status"), "status")
        workspace_id = self._workspace(request)
        found = await self.partners.list(
            search=search, status=status, limit=PARTNERS_ON_PAGE, cursor=after, workspace_id=workspace_id
        )
        totals = await self.partners.totals(found.items, period=asked.period, workspace_id=workspace_id)
        return rendering.page(
            request,
            "partners.html",
            {
                "asked": asked,
                "rows": [
                    (one, self._terms(one), totals[one.id], partner_words.earned(totals[one.id]))
                    for one in found.items
                ],
                "next_cursor": found.next_cursor,
                "after": after,
                "search": search,
                "status": status,
                "STANDINGS": partner_words.STANDINGS,
            },
        )

    async def partner(self, request: Request) -> Response:
        """Everything about one partner."""
        asked, typed, partner = self._asked(request), _typed(request), await self._partner(request)
        status = _one_of(partner_words.REVIEWS, typed.get("status"), "status")
        kind = _one_of(partner_words.KINDS, typed.get("kind"), "kind")
        after = typed.get("after") or None
        entries = await self.partners.commissions(
            partner, status=status, kind=kind, limit=ENTRIES_ON_PAGE, cursor=after,
            workspace_id=partner.workspace_id,
        )  # fmt: skip
        now, before = [
            (await self.partners.totals([partner], period=period, workspace_id=partner.workspace_id))[
                partner.id
            ]
            for period in (asked.period, asked.before)
        ]
        return rendering.page(
            request,
            "partner.html",
            {
                "asked": asked,
                "partner": partner,
                "terms": self._terms(partner),
                "tiles": partner_words.tiles(now, before),
                "stats": now,
                "entries": [(one, partner_words.reason(one)) for one in entries.items],
                "next_cursor": entries.next_cursor,
                "chosen": {"status": status, "kind": kind},
                "after": after,
                **_WORDS,
            },
        )

    # Changing --------------------------------------------------------------------------------------------------------

    async def new(self, request: Request) -> Response:
        """The form of a partner who is not made yet."""
        return self._form(request, Form(partner_form.BLANK))

    async def create(self, request: Request) -> Response:
        """Add a partner."""
        values = form_of(await forms.read(request))
        read = partner_form.read(values)
        form = Form(values, read.errors)
        if read.errors:
            return self._form(request, form, status=400)
        try:
            made = await self.partners.create(**read.fields, workspace_id=self._workspace(request))
        except (Conflict, InvalidInput) as error:
            return self._form(request, replace(form, errors=_refused(error)), status=400)
        return self._to(request, made, saved="yes")

    async def edit(self, request: Request) -> Response:
        """The form of a partner as they are."""
        partner = await self._partner(request)
        return self._form(request, Form(_with_time(partner_form.written(partner), partner)), partner)

    async def save(self, request: Request) -> Response:
        """Change a partner."""
        partner, values = await self._partner(request), form_of(await forms.read(request))
        read = partner_form.read(values, partner_form.written(partner))
        form = Form(_with_time(values, partner), read.errors)
        if values.get("seen") != form.value("seen"):
            form = replace(form, errors={**read.errors, "": _CHANGED_MEANWHILE})
            return self._form(request, form, partner, 409)
        if read.errors:
            return self._form(request, form, partner, 400)
        try:
            if read.fields:
                await self.partners.update(partner, **read.fields, workspace_id=partner.workspace_id)
        except (Conflict, InvalidInput) as error:
            return self._form(request, replace(form, errors=_refused(error)), partner, 400)
        return self._to(request, partner, saved="yes")

    async def stand(self, request: Request) -> Response:
        """Pause or close a partner, or let them earn again."""
        partner, typed = await self._partner(request), await forms.read(request)
        match typed.get("to"):
            case "active":
                await self.partners.update(partner, status="active", workspace_id=partner.workspace_id)
            case "paused":
                await self.partners.pause(partner, workspace_id=partner.workspace_id)
            case "closed":
                await self.partners.close(partner, workspace_id=partner.workspace_id)
            case _:
                raise InvalidInput("A partner can be active, paused or closed", where="to")
        return self._to(request, partner, saved="yes")

    async def review(self, request: Request) -> Response:
        """Approve a commission, make it void, or leave it to the rules again."""
        partner, typed = await self._partner(request), await forms.read(request)
        status = _one_of(partner_words.REVIEWS, typed.get("to"), "to")
        if status is None:
            raise InvalidInput("Say whether it is approved, void or pending", where="to")
        await self.partners.review(
            _id_in(request, "commission_id", _UNKNOWN_ENTRY), status, of=partner, reason=typed.get("reason"), actor=ACTOR,
            workspace_id=partner.workspace_id,
        )  # fmt: skip
        asked_for = _typed(request)
        return self._to(request, partner, "#ledger", **{name: asked_for.get(name, "") for name in LEDGER})

    # Parts -----------------------------------------------------------------------------------------------------------

    async def _partner(self, request: Request) -> Partner:
        """
        The partner in the path.

        Raises:
            NotFound: There is none in this workspace.
        """
        found = await self.partners.get(
            _id_in(request, "partner_id", UNKNOWN_PARTNER), workspace_id=self._workspace(request)
        )
        if found is None:
            raise NotFound(UNKNOWN_PARTNER)
        return found

    def _form(
        self, request: Request, form: Form, partner: Partner | None = None, status: int = 200
    ) -> Response:
        shown = {
            "asked": self._asked(request),
            "form": form,
            "partner": partner,
            "window": partner_words.days(self.partners.config.referral.window),
            **_WORDS,
        }
        return rendering.page(request, "partner_form.html", shown, status)

    def _terms(self, partner: Partner) -> str:
        return partner_words.terms(partner.commission, self.partners.config.referral.window)

    def _asked(self, request: Request) -> Asked:
        return asked_of(request, self.partners.config)

    def _workspace(self, request: Request) -> UUID:
        return workspace_of(request, self.partners.config)

    def _to(self, request: Request, partner: Partner, place: str = "", **more: str) -> Response:
        root, query = request.scope.get("root_path", ""), self._asked(request).href(**more)
        return Response(status_code=303, headers={"Location": f"{root}/partners/{partner.id}{query}{place}"})


_UNKNOWN_ENTRY: Final = "This partner has no such commission."
_CHANGED_MEANWHILE: Final = "Somebody changed this partner while you wrote. Below stands what you typed; saving again puts it in place of theirs."
_WORDS: Final = {
    "LABELS": partner_words.LABELS,
    "STANDINGS": partner_words.STANDINGS,
    "REVIEWS": partner_words.REVIEWS,
    "KINDS": partner_words.KINDS,
}


def _typed(request: Request) -> dict[str, str]:
    return asking.first_of(request.query_params.multi_items())


def _one_of(known: Mapping[Chosen, str], typed: str | None, where: str) -> Chosen | None:
    """
    What was chosen; `None` when nothing was.

    Raises:
        InvalidInput: It is none of *known*.
    """
    if not typed:
        return None
    for one in known:
        if one == typed:
            return one
    raise InvalidInput(f"{typed!r:.80} is not known. Use one of: {', '.join(known)}", where=where)


def _id_in(request: Request, name: str, unknown: str) -> UUID:
    """
    An id in the path.

    Raises:
        NotFound: It is none, which is the same as an unknown one.
    """
    try:
        return UUID(request.path_params[name])
    except ValueError:
        raise NotFound(unknown) from None


def _with_time(values: Mapping[str, str], partner: Partner) -> dict[str, str]:
    """*values* of a form that was written when *partner* was as they are now."""
    return {**values, "seen": partner.updated_at.isoformat()}


def _refused(error: Conflict | InvalidInput) -> dict[str, str]:
    """The field that *error* is about, and what is wrong there."""
    match error:
        case InvalidInput():
            return {error.where.rpartition(".")[2]: in_plain(error)}
        case IdTaken():
            return {"external_id": f"{error}."}
        case _:
            return {"code": f"{error}."}


__all__ = ["PartnerPages"]
