"""
The dashboard's pages about domains: what holds for all links of each.

A form that is refused comes back as it was typed, with every reason beside its field. Only what was changed is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from goodanalytics.core.link_fields import checked_domain
from goodanalytics.core.links import Domain, checked_android_apps, checked_ios_app_ids, checked_url
from goodanalytics.core.own_address import prefix_of
from goodanalytics.errors import Conflict, InvalidInput
from goodanalytics.facade.links import Links
from goodanalytics.store import link_lists
from goodanalytics.web.dashboard import asked as asking
from goodanalytics.web.dashboard import forms, rendering
from goodanalytics.web.dashboard.asked import Asked
from goodanalytics.web.dashboard.link_form import Form, in_plain
from goodanalytics.web.dashboard.links import Respond, asked_of, form_of, workspace_of

MAX_FORM: Final = 64 * 1024  # bytes; fifty apps with their fingerprints

ADDRESSES: Final = ("root_url", "not_found_url", "expired_url")


@dataclass(frozen=True, slots=True)
class DomainPages:
    """The pages of the domains of *links*."""

    links: Links

    @property
    def routes(self) -> Sequence[tuple[str, Mapping[str, Respond]]]:
        """Each path with what answers each method."""
        return (
            ("/domains", {"GET": self.list}),
            ("/domains/{host}", {"GET": self.edit, "POST": self.save}),
        )

    async def list(self, request: Request) -> Response:
        """Every domain that has links, that something was said of, or that is a link domain."""
        typed = asking.first_of(request.query_params.multi_items()).get("host", "").strip()
        wrong = ""
        if typed:
            try:
                return self._to(request, checked_domain(typed), asked_of(request, self.links.config))
            except InvalidInput as error:
                wrong = in_plain(error)
        workspace_id = workspace_of(request, self.links.config)
        told = {domain.host: domain for domain in await self.links.domains(workspace_id=workspace_id)}
        async with self.links.database.connect() as conn:
            known = await link_lists.words(conn, self.links.database.tables, workspace_id)
        hosts = {*told, *known.domains, *self.links.config.link_domains}
        shown = [told.get(host, Domain(workspace_id=workspace_id, host=host)) for host in sorted(hosts)]
        return rendering.page(
            request,
            "domains.html",
            {
                "asked": asked_of(request, self.links.config),
                "domains": shown,
                "with_links": known.domains,
                "host": typed,
                "wrong": wrong,
            },
            400 if wrong else 200,
        )

    async def edit(self, request: Request) -> Response:
        """The form of a domain as it is."""
        domain = await self._domain(request)
        return self._form(request, domain, Form(written(domain)))

    async def save(self, request: Request) -> Response:
        """Say what holds for a domain."""
        domain, values = await self._domain(request), form_of(await forms.read(request, MAX_FORM))
        fields, errors = read(values, written(domain))
        if not errors:
            try:
                await self.links.set_domain(domain.host, workspace_id=domain.workspace_id, **fields)
            except Conflict as error:
                errors = {"folded": f"{error}."}
            except InvalidInput as error:
                errors = {error.where.partition("[")[0]: in_plain(error)}
        if errors:
            return self._form(request, domain, Form(values, errors), 400)
        return self._to(request, domain.host, asked_of(request, self.links.config), saved="yes")

    async def _domain(self, request: Request) -> Domain:
        host = request.path_params["host"]
        return await self.links.get_domain(host, workspace_id=workspace_of(request, self.links.config))

    def _form(self, request: Request, domain: Domain, form: Form, status: int = 200) -> Response:
        config = self.links.config
        shown = {
            "asked": asked_of(request, config),
            "domain": domain,
            "prefix": prefix_of(domain.host, config.link_domains, config.link_path),
            "form": form,
            "LABELS": LABELS,
        }
        return rendering.page(request, "domain.html", shown, status)

    @staticmethod
    def _to(request: Request, host: str, asked: Asked, **more: str) -> Response:
        root = request.scope.get("root_path", "")
        return Response(status_code=303, headers={"Location": f"{root}/domains/{host}{asked.href(**more)}"})


LABELS: Final[Mapping[str, str]] = {
    "root_url": "Whoever opens the bare domain is led to",
    "not_found_url": "Whoever opens a short name that no link has is led to",
    "expired_url": "Whoever opens a link that is over is led to",
    "folded": "Big and small letters are the same in short names",
    "ios_app_ids": "Apps on iPhone and iPad",
    "android_apps": "Apps on Android",
}
"""What is said of a domain, as pages call it."""


def written(domain: Domain) -> dict[str, str]:
    """The form of *domain*: an app on each line."""
    values = {name: value for name in ADDRESSES if (value := getattr(domain, name))}
    return values | {
        "folded": "" if domain.case_sensitive else "on",
        "ios_app_ids": "\n".join(domain.ios_app_ids),
        "android_apps": "\n".join(
            " ".join([app.package_name, *app.sha256_fingerprints]) for app in domain.android_apps
        ),
    }


def read(values: Mapping[str, str], before: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What is said in *values* and not in *before*, as `links.set_domain` takes it; and what is wrong, by field."""
    fields: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name in LABELS:
        said = values.get(name, "").strip()
        if said == before.get(name, ""):
            continue
        try:
            match name:
                case "folded":
                    fields["case_sensitive"] = not said
                case "ios_app_ids":
                    fields[name] = checked_ios_app_ids(said.split())
                case "android_apps":
                    apps = [_WORDS.findall(line) for line in said.splitlines() if line.strip()]
                    fields[name] = checked_android_apps(
                        [{"package_name": one[0], "sha256_fingerprints": one[1:]} for one in apps if one]
                    )
                case _:
                    fields[name] = checked_url(said, name) if said else None
        except InvalidInput as error:
            errors[name] = in_plain(error)
    return fields, errors


_WORDS: Final = re.compile(r"[^\s,;]+")

__all__ = ["ADDRESSES", "LABELS", "DomainPages", "read", "written"]
