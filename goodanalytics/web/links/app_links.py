"""
The two files by which a telephone learns that an app opens a domain's links itself.

* `apple-app-site-association` (Apple, "Supporting associated domains"): which apps, and for which paths. It must be JSON, come
  without a redirect, and lie below `/.well-known`; older systems look at the root as well.
* `assetlinks.json` (Google, "Verify Android App Links"; Digital Asset Links): which packages, signed with which certificates.

They are served on link domains only: elsewhere `/.well-known` is the host app's.
"""

from __future__ import annotations

from typing import Final

import msgspec

from goodanalytics.core.links import Domain
from goodanalytics.web.links.answers import Answer, document, plain

MAX_AGE: Final = 3_600  # seconds

APPLE: Final = frozenset({".well-known/apple-app-site-association", "apple-app-site-association"})
ANDROID: Final = ".well-known/assetlinks.json"
PATHS: Final = APPLE | {ANDROID}
"""Paths without their slash."""


def respond(path: str, domain: Domain) -> Answer:
    """The file at *path*, one of `PATHS`; 404 where the domain names no app."""
    found = _apple(domain) if path in APPLE else _android(domain)
    if found is None:
        return plain(404, "No app is named for this domain")
    return document(
        200, msgspec.json.encode(found), "application/json", [("cache-control", f"public, max-age={MAX_AGE}")]
    )


def _apple(domain: Domain) -> object:
    if not domain.ios_app_ids:
        return None
    # As iOS reads it since version 13; `webcredentials` would hand an app the passwords that are saved for the domain.
    return {"applinks": {"details": [{"appIDs": domain.ios_app_ids, "components": [{"/": "*"}]}]}}


def _android(domain: Domain) -> object:
    if not domain.android_apps:
        return None
    return [
        {
            "relation": ["delegate_permission/common.handle_all_urls"],
            "target": {
                "namespace": "android_app",
                "package_name": app.package_name,
                "sha256_cert_fingerprints": app.sha256_fingerprints,
            },
        }
        for app in domain.android_apps
    ]
