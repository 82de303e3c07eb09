"""
What the columns of other shorteners' exports mean. A table for each; the pages that describe the columns stand beside it.

A column's name is compared without blanks, marks and case: `Short link`, `short_link` and `shortLink` are one. Its meaning is a
field of a link, or one of the words below. A column that no table names is reported, never dropped in silence.

* `short_url`, `custom_url`: the whole short address; the custom one wins. `domain` and `key` are its parts, and win over it.
* `id`, `clicks`: kept in the metadata, as everything is that `KEEP` names: figures and marks that no field of ours holds.
* `password`: a link that has one is refused, because no export holds it and the link would be open to all.
* `banned`: a link that its shortener has banned is refused.
* `hidden`: it still leads on there, so it does here; the metadata says that it was hidden.
* `country_url`, `desktop_url` and `rules` become rules; `rules_elsewhere` says that there are some which the file does not hold.
* `lost`: something that the link did there and cannot do here; kept in the metadata, and told.
* `DROP`: left out and said so: what is ours to count anew, and who made the link, which is a person's name or address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

KEEP: Final = "keep"
DROP: Final = "drop"

_NAME = re.compile(r"[^a-z0-9.]+")

_UTM: Final[Mapping[str, str]] = {
    f"utm{name}": f"utm_{name}" for name in ("source", "medium", "campaign", "content", "term")
}


@dataclass(frozen=True, slots=True)
class Rival:
    """
    A shortener that links are brought from.

    Attributes:
        name: As the command line has it, and before the ids of its links.
        columns: Meaning by column, both as the module says. A column that ends in a dot means all that begin so.
        pages: Where the columns are described.
        shared_domains: Hosts of its own, which do not move with a customer.
    """

    name: str
    title: str
    columns: Mapping[str, str]
    pages: tuple[str, ...]
    shared_domains: frozenset[str] = field(default=frozenset())

    def meaning(self, column: str) -> str | None:
        """What *column* means; `None` when no table says it."""
        plain = plain_name(column)
        found = self.columns.get(plain)
        if found is None and "." in plain:
            found = self.columns.get(plain.partition(".")[0] + ".")
        return found


def plain_name(column: str) -> str:
    """
    *column* without blanks, marks and case.

    >>> plain_name("Short link"), plain_name("meta.validUntil")
    ('shortlink', 'meta.validuntil')
    """
    return _NAME.sub("", column.lower())


def _meanings(words: str, **more: str) -> dict[str, str]:
    """`"meaning: column column; …"` as a table by column."""
    found = dict(more)
    for group in words.split(";"):
        meaning, _, columns = group.partition(":")
        found |= dict.fromkeys(columns.split(), meaning.strip())
    return found


DUB: Final = Rival(
    "dub",
    "Dub",
    _meanings(
        """
        short_url: shortlink; url: destinationurl url; clicks: clicks; created_at: createdat; id: linkid id;
        tags: tags tagnames; hidden: archived; domain: domain; key: key; title: title; notes: comments; expires_at: expiresat;
        expired_url: expiredurl; password: password; ios_url: ios; android_url: android; country_url: geo.; indexed: doindex;
        og_description: description; og_image: image; cloaked: rewrite;
        keep: externalid tenantid leads conversions sales saleamount revenue folderid programid partnerid trackconversion;
        drop: updatedat lastclicked userid user. workspaceid projectid qrcode tagid tags. publicstats identifier
            webhookids teststartedat testcompletedat geo;
        lost: proxy video testvariants; banned: disabledat
        """,
        **_UTM,
    ),
    (
        "https://dub.co/help/article/how-to-export-links",
        "https://github.com/dubinc/dub/blob/main/apps/web/lib/zod/schemas/links.ts (exportLinksColumns)",
        "https://dub.co/docs/api-reference/endpoint/retrieve-a-list-of-links",
    ),
    frozenset({"dub.sh", "dub.link", "dub.co", "d.to"}),
)

BITLY: Final = Rival(
    "bitly",
    "Bitly",
    _meanings(
        """
        short_url: link bitlink; custom_url: customlink custombitlinks; url: destinationurl longurl; title: title;
        created_at: datecreated createdat created; clicks: engagements clicks totalengagements; id: id; tags: tags;
        hidden: status archived;
        drop: createdby clientid deeplinks references references. campaignids launchpadids groupguid
        """,
        **_UTM,
    ),
    (
        "https://support.bitly.com/hc/en-us/articles/115000268051-How-do-I-export-all-data-from-the-Links-page",
        "https://dev.bitly.com/api-reference/#getBitlinksByGroup",
    ),
    frozenset({"bit.ly", "j.mp", "bitly.com"}),
)

SHORTIO: Final = Rival(
    "shortio",
    "Short.io",
    _meanings(
        """
        short_url: shorturl secureshorturl; url: originalurl; key: originalpath path; title: title; clicks: clicks clickscount;
        created_at: createdat; expires_at: expiresat; expired_url: expiredurl; id: idstring id; tags: tags; domain: domain
        domain.hostname; ios_url: iphoneurl; android_url: androidurl; max_clicks: clickslimit; redirect_status: redirecttype;
        password: password haspassword passwordcontact; hidden: archived; cloaked: cloaking;
        lost: spliturl splitpercent; keep: integrationga integrationfb integrationadroll integrationgtm folderid;
        drop: createdby updatedat ownerid user. userid ttl source icon domainid linkid lcpath owner. skipqs duplicate
        """,
        **_UTM,
    ),
    (
        "https://docs.short.io/articles/managing-links/how-to-export-short-links-from-short.io",
        "https://developers.short.io/reference/get_api-links",
    ),
    frozenset({"short.gy", "shortcm.li", "s.gy"}),
)

REBRANDLY: Final = Rival(
    "rebrandly",
    "Rebrandly",
    _meanings(
        """
        id: id linkid; title: title; key: slashtag; url: destination destinationurl; short_url: shorturl shortlink;
        domain: domain domain.fullname domainname; clicks: clicks totalclicks; created_at: createdat creationdate; tags: tags;
        notes: description notes; forward_query: forwardparameters;
        keep: favourite lastclickat lastclickdate status linkstatus;
        drop: updatedat lastupdate creator creator. workspace. domain.id domain.ref domain.active domain.sharing domain.type
            domainid integrated https sessions lastclicksessions owner workspace
        """,
        **_UTM,
    ),
    (
        "https://developers.rebrandly.com/docs/link-entity",
        "https://support.rebrandly.com/en/articles/469699-can-i-move-links-between-my-workspaces",
    ),
    frozenset({"rebrand.ly"}),
)

SHLINK: Final = Rival(
    "shlink",
    "Shlink",
    _meanings(
        """
        created_at: createdat datecreated; domain: domain; key: shortcode; short_url: shorturl; url: longurl; title: title;
        tags: tags; clicks: visits visitscount visitssummary.total; starts_at: meta.validsince validsince;
        expires_at: meta.validuntil validuntil; max_clicks: meta.maxvisits maxvisits; indexed: crawlable;
        forward_query: forwardquery; ios_url: devicelongurls.ios; android_url: devicelongurls.android; rules: redirectrules;
        keep: visitssummary.bots visitssummary.nonbots; desktop_url: devicelongurls.desktop; rules_elsewhere: hasredirectrules
        """
    ),
    (
        "https://github.com/shlinkio/shlink-web-component/blob/main/src/short-urls/helpers/ExportShortUrlsBtn.tsx",
        "https://github.com/shlinkio/shlink-importer/blob/main/README.md (standard CSV)",
        "https://api-spec.shlink.io/ (GET /rest/v3/short-urls and …/redirect-rules)",
    ),
)

YOURLS: Final = Rival(
    "yourls",
    "YOURLS",
    _meanings(
        "short_url: shorturl; key: keyword source; url: url target; title: title; created_at: timestamp; clicks: clicks hits; drop: ip"
    ),
    (
        "https://github.com/YOURLS/YOURLS/blob/master/includes/functions.php (yourls_get_stats, API action stats)",
        "https://github.com/GautamGupta/YOURLS-Import-Export/blob/master/fileio/csv.php",
        "https://slnk.to/yourls-import",
    ),
)

KUTT: Final = Rival(
    "kutt",
    "Kutt",
    _meanings(
        """
        id: id; key: address; short_url: link; domain: domain; url: target; notes: description; clicks: visitcount;
        created_at: createdat; expires_at: expirein; password: password; banned: banned;
        drop: updatedat email userid
        """
    ),
    (
        "https://docs.kutt.it/#tag/links/paths/~1links/get",
        "https://github.com/thedevs-network/kutt/blob/main/server/utils/utils.js (sanitize.link)",
    ),
    frozenset({"kutt.it", "kutt.to"}),
)

RIVALS: Final[Mapping[str, Rival]] = {
    rival.name: rival for rival in (BITLY, DUB, KUTT, REBRANDLY, SHLINK, SHORTIO, YOURLS)
}
