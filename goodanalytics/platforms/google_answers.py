"""
How the answers of Google's Data Manager API read: a refusal at once, results later.

1. Fail-fast: one wrong event refuses the request and nothing of it is kept. Google names the events that are to blame; those
   are never tried again, their neighbours are. https://developers.google.com/data-manager/api/devguides/concepts/understand-errors
2. Results come by destination, as counts by reason: https://developers.google.com/data-manager/api/devguides/diagnostics.
   Where counts do not tell whose they are, the verdict is `of_batch`: the batch is halved and sent again, which changes
   nothing for those that Google has.
3. Some refusals are mended in the account and not in the event; they stop the platform until somebody did.
4. A question that failed says nothing about the conversions. It is asked again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from goodanalytics.platforms.answers import unreadable
from goodanalytics.platforms.conversion import Conversion
from goodanalytics.platforms.dialect import CEILING, Outcome, Response, Status, Verdict
from goodanalytics.platforms.google_account import error_of, refusal_of_all

STILL_AT_IT: Final = Verdict(status="accepted", code="PROCESSING", retry_after=CEILING)
_OF_ACCOUNT: Final = frozenset(
    {
        "DESTINATION_ACCOUNT_DATA_POLICY_PROHIBITS_ENHANCED_CONVERSIONS",
        "DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED",
        "DESTINATION_ACCOUNT_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS",
        "DESTINATION_ACCOUNT_TYPE_MISMATCH",
        "INVALID_CONVERSION_ACTION_ID",
        "INVALID_CONVERSION_ACTION_TYPE",
        "INVALID_DESTINATION",
        "NOT_ALLOWLISTED",
        "OPERATING_ACCOUNT_LOGIN_ACCOUNT_MISMATCH",
        "TERMS_AND_CONDITIONS_NOT_SIGNED",
    }
)
"""Refusals that somebody mends in the account, not in the event (`ErrorReason`)."""

_TOO_EARLY: Final = "CONVERSION_ACTION_TOO_RECENTLY_CREATED"
_PREFIX: Final = "PROCESSING_ERROR_REASON_"
_RESULTS: Final[Mapping[str, Status]] = MappingProxyType(
    {
        "DUPLICATE_TRANSACTION_ID": "delivered",
        "DUPLICATE_GCLID": "delivered",
        "INTERNAL_ERROR": "retry",
        "TOO_RECENT_CLICK": "retry",
        "ORIGINAL_CONVERSIONS_NOT_FOUND": "retry",
        "NO_CONSENT": "credential",
        "DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED": "credential",
        "EXTERNAL_ATTRIBUTION_DATA_MISSING": "credential",
    }
)
"""What a reason of `ProcessingErrorReason` means; permanent where it is not here. New ones may come at any time."""

_EVENT = re.compile(r"\bevents\[(\d{1,4})\]")


def refusal(body: Mapping[str, Any], response: Response, batch: Sequence[Conversion]) -> list[Outcome]:
    """What became of a batch that was refused: the blamed, their neighbours, or all alike."""
    status, message, details = error_of(body)
    violations = list(_violations(details))
    reasons = {str(violation.get("reason", "")) for violation in violations} | {
        str(detail.get("reason", "")) for detail in details
    }
    if ours := sorted(reasons & _OF_ACCOUNT):
        return Verdict(status="credential", code=ours[0], message=message).on_all(batch)
    if _TOO_EARLY in reasons:
        return Verdict(status="retry", code=_TOO_EARLY, message=message, retry_after=CEILING).on_all(batch)
    blamed = _blamed(violations, len(batch))
    if status != "INVALID_ARGUMENT" or not blamed:
        return refusal_of_all(status, message, details, response).on_all(batch)
    neighbour = Verdict(
        status="retry", code="neighbour_refused", message="Another event of the request was refused"
    )
    return [blamed.get(index, neighbour).on(conversion) for index, conversion in enumerate(batch)]


def _violations(details: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for detail in details:
        found = detail.get("fieldViolations")
        yield from (each for each in found if isinstance(each, dict)) if isinstance(found, list) else ()


def _blamed(violations: Iterable[Mapping[str, Any]], sent: int) -> dict[int, Verdict]:
    """The events that Google names, by their place in the request; nothing when it also blames something else."""
    blamed: dict[int, Verdict] = {}
    for violation in violations:
        path = str(violation.get("field", ""))
        found = _EVENT.search(path)
        # Counted from zero: google/rpc/error_details.proto, `BadRequest.FieldViolation.field`.
        if not found or int(found[1]) >= sent:
            return {}
        said = f"{path}: {violation.get('description', '')}"
        code = str(violation.get("reason") or "INVALID_ARGUMENT")
        blamed.setdefault(int(found[1]), Verdict(status="permanent", code=code, message=said))
    return blamed


def warnings_of(found: object) -> str:
    """What Google left out of the events that it took (`FieldWarning`), in one line; without the values."""
    if not isinstance(found, list):
        return ""
    return "; ".join(f"{each.get('reason')}: {each.get('field')}" for each in found if isinstance(each, dict))


def unanswered(body: Mapping[str, Any], response: Response) -> Verdict:
    """The question failed, which says nothing about the conversions: it is asked again, unless it cannot be answered."""
    status, message, details = error_of(body)
    reasons = {str(detail.get("reason", "")) for detail in details}
    if "INVALID_REQUEST_ID" in reasons:
        return Verdict(status="retry", code="INVALID_REQUEST_ID", message=message)
    if "REQUEST_TOO_OLD" in reasons:
        return Verdict(status="permanent", code="REQUEST_TOO_OLD", message=message)
    verdict = refusal_of_all(status, message, details, response) if body else unreadable(response)
    if verdict.status == "credential":
        return verdict
    return Verdict(
        status="accepted", code=verdict.code, message=verdict.message, retry_after=verdict.retry_after
    )


def result_of(status: Mapping[str, Any], sent: int) -> Verdict:
    """The verdict of one `RequestStatusPerDestination` on the *sent* events of that destination."""
    match status.get("requestStatus"):
        case "SUCCESS":
            return Verdict(status="delivered", code="SUCCESS")
        case "FAILED" | "PARTIAL_SUCCESS" as result:
            return _failure(str(result), _counts(status.get("errorInfo")), sent)
        case _:
            return STILL_AT_IT


def _counts(error_info: object) -> Counter[str]:
    counts: Counter[str] = Counter()
    found = error_info.get("errorCounts") if isinstance(error_info, dict) else None
    for each in found if isinstance(found, list) else []:
        # Counts are int64, which JSON of a protocol buffer writes as text.
        number = str(each.get("recordCount", 0))
        counts[str(each.get("reason", "")).removeprefix(_PREFIX)] += int(number) if number.isdigit() else 0
    return counts


def _failure(result: str, counts: Counter[str], sent: int) -> Verdict:
    """The verdict on all events of a destination; `of_batch` where it holds for some of them only."""
    told = ", ".join(f"{number} of {sent} {reason}" for reason, number in counts.most_common())
    statuses = {_RESULTS.get(reason, "permanent") for reason in counts}
    code = counts.most_common(1)[0][0] if counts else result
    if statuses == {"delivered"}:
        return Verdict(status="delivered", code=code, message=told)
    if "credential" in statuses:
        return Verdict(status="credential", code=code, message=told)
    if statuses and statuses <= {"delivered", "retry"}:
        return Verdict(status="retry", code=code, message=told, retry_after=CEILING)
    exact = sent == 1 or (result == "FAILED" and statuses == {"permanent"})
    return Verdict(status="permanent", code=code, message=told, of_batch=not exact)
