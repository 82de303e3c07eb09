"""`/experiments/{link_id}`: what the split of a link shows, and whether the differences mean anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.responses import Response

from goodanalytics.store.link_experiments import Experiment
from goodanalytics.web.api.link_bodies import Moment
from goodanalytics.web.api.links import UNKNOWN, link_id_of, period_of
from goodanalytics.web.api.operations import Answer, Call, Operation, answer, read_query


class ExperimentQuery(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """Which time, and which money. Without a period: since the variants were last changed."""

    since: Moment | None = None
    until: Moment | None = None
    currency: (
        Annotated[
            str,
            Meta(pattern="^[A-Z]{3}$", description="The one that most people bought in when left out."),
        ]
        | None
    ) = None


async def experiment(call: Call) -> Response:
    """What the split of a link shows."""
    link_id = link_id_of(call)
    query = read_query(call.request, ExperimentQuery)
    found = await call.room.links.experiment(
        link_id,
        period=period_of(query.since, query.until, call.now),
        currency=query.currency,
        workspace_id=call.workspace_id,
    )
    return answer(found)


OPERATIONS: Sequence[Operation] = (
    Operation(
        method="GET",
        path="/experiments/{link_id}",
        name="getExperiment",
        summary="Get the result of a link’s split",
        description=(
            "Each variant against the first one, by the share of visitors who converted and by revenue per visitor. The "
            "verdicts may be read as often as one likes. A link without variants has no outcomes."
        ),
        respond=experiment,
        path_types={"link_id": UUID},
        query=ExperimentQuery,
        answers={200: Answer("The result.", Experiment)},
        problems={404: UNKNOWN},
    ),
)
