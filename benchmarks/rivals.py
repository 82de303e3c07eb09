"""
What one would write without thinking about it: a transaction for each request.

`orm`: FastAPI, a pydantic body, one SQLAlchemy entity of twenty columns.
`orm_pipeline`: the same for all that an event means: receipt, visitor, session and event by the ORM.
`insert`: the twenty columns by one INSERT through asyncpg.
`transaction`: all that an event means, in six statements through asyncpg.
The two that store all that an event means read source and device with our own core, so that only the storing differs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from pydantic import BaseModel
from sqlalchemy import DateTime, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from goodanalytics.core import devices, sources, urls

CONNECTIONS = 16
PATH = "/ga/t/event"
TIMEOUT = timedelta(minutes=30)
WORKSPACE = UUID(int=0)

TABLES = (
    "CREATE TABLE receipts (id uuid PRIMARY KEY, received_at timestamptz NOT NULL)",
    """
    CREATE TABLE visitors (
        id uuid PRIMARY KEY, anonymous_id text NOT NULL UNIQUE, first_seen_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL, total_events bigint NOT NULL)
    """,
    """
    CREATE TABLE sessions (
        id uuid PRIMARY KEY, visitor_id uuid NOT NULL, started_at timestamptz NOT NULL, last_at timestamptz NOT NULL,
        pageviews int NOT NULL, entry_path text, source text, medium text)
    """,
    "CREATE INDEX ON sessions (visitor_id, last_at DESC)",
    """
    CREATE TABLE events (
        id uuid PRIMARY KEY, workspace_id uuid NOT NULL, visitor_id uuid, session_id uuid,
        occurred_at timestamptz NOT NULL, event_type text NOT NULL, anonymous_id text, url text, path text, title text,
        referrer text, source text, medium text, device_type text, browser text, os text, language text, screen text,
        timezone text, properties jsonb)
    """,
    "CREATE INDEX ON events (workspace_id, occurred_at DESC)",
    "CREATE INDEX ON events (visitor_id, occurred_at DESC)",
)
INSERT_EVENT = f"INSERT INTO events VALUES ({', '.join(f'${n}' for n in range(1, 21))})"


class Body(msgspec.Struct):
    """The body for the variants without pydantic."""

    event_id: UUID
    url: str
    event_type: str = "pageview"
    title: str | None = None
    referrer: str | None = None
    screen: str | None = None
    language: str | None = None
    timezone: str | None = None
    touch_points: int | None = None
    properties: dict[str, Any] = {}


class PydanticBody(BaseModel):
    """The same for FastAPI."""

    event_id: UUID
    url: str
    event_type: str = "pageview"
    title: str | None = None
    referrer: str | None = None
    screen: str | None = None
    language: str | None = None
    timezone: str | None = None
    touch_points: int | None = None
    properties: dict[str, Any] = {}


@dataclass(slots=True)
class Meaning:
    """What our core reads out of a body."""

    path: str
    source: sources.Source
    device: devices.Device


def understand(body: Any, user_agent: str | None) -> Meaning:
    return Meaning(
        urls.parts(body.url).path,
        sources.classify(body.url, body.referrer, ("shop.example",)),
        devices.parse(user_agent, None, body.touch_points),
    )


# asyncpg -----------------------------------------------------------------------------------------------------------------

_decoder = msgspec.json.Decoder(Body)
_pool: Any = None


@asynccontextmanager
async def _pooled(_app: Any) -> AsyncIterator[None]:
    global _pool
    async with asyncpg.create_pool(
        os.environ["BENCH_DATABASE"], min_size=CONNECTIONS, max_size=CONNECTIONS
    ) as _pool:
        yield


def _event(
    body: Any,
    request: Request,
    now: datetime,
    meaning: Meaning | None,
    visitor: Any = None,
    session: Any = None,
) -> tuple[Any, ...]:
    device = meaning.device if meaning else devices.Device()
    return (
        *(body.event_id, WORKSPACE, visitor, session, now, body.event_type),
        *(
            request.cookies.get("_ga_anon"),
            body.url,
            meaning.path if meaning else None,
            body.title,
            body.referrer,
        ),
        *((meaning.source.platform, meaning.source.medium) if meaning else (None, None)),
        *(device.type, device.browser, device.os, body.language, body.screen, body.timezone),
        msgspec.json.encode(body.properties).decode(),
    )


async def _insert(request: Request) -> Response:
    body = _decoder.decode(await request.body())
    async with _pool.acquire() as conn:
        await conn.execute(INSERT_EVENT, *_event(body, request, datetime.now(UTC), None))
    return Response(status_code=202)


async def _transaction(request: Request) -> Response:
    body = _decoder.decode(await request.body())
    meaning = understand(body, request.headers.get("user-agent"))
    now = datetime.now(UTC)
    source = meaning.source
    async with _pool.acquire() as conn, conn.transaction():
        is_new = await conn.fetchval(
            "INSERT INTO receipts VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true", body.event_id, now
        )
        if not is_new:
            return Response(status_code=202)
        visitor = await conn.fetchval(
            "INSERT INTO visitors VALUES ($1, $2, $3, $3, 0) "
            "ON CONFLICT (anonymous_id) DO UPDATE SET last_seen_at = $3 RETURNING id",
            uuid4(), request.cookies.get("_ga_anon"), now,
        )  # fmt: skip
        session = await conn.fetchval(
            "SELECT id FROM sessions WHERE visitor_id = $1 AND last_at > $2 ORDER BY last_at DESC LIMIT 1",
            visitor, now - TIMEOUT,
        )  # fmt: skip
        if session is None:
            session = uuid4()
            await conn.execute(
                "INSERT INTO sessions VALUES ($1, $2, $3, $3, 1, $4, $5, $6)",
                session, visitor, now, meaning.path, source.platform, source.medium,
            )  # fmt: skip
        else:
            await conn.execute(
                "UPDATE sessions SET last_at = $2, pageviews = pageviews + 1 WHERE id = $1", session, now
            )
        await conn.execute(INSERT_EVENT, *_event(body, request, now, meaning, visitor, session))
        await conn.execute("UPDATE visitors SET total_events = total_events + 1 WHERE id = $1", visitor)
    return Response(status_code=202)


def _asyncpg_app(endpoint: Any) -> Starlette:
    return Starlette(routes=[Route(PATH, endpoint, methods=["POST"])], lifespan=_pooled)


# ORM ---------------------------------------------------------------------------------------------------------------------


class Entity(DeclarativeBase):
    """The ORM's root."""

    type_annotation_map = {datetime: DateTime(timezone=True), dict[str, Any]: JSONB}  # noqa: RUF012


class Receipt(Entity):
    __tablename__ = "receipts"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    received_at: Mapped[datetime]


class Visitor(Entity):
    __tablename__ = "visitors"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    anonymous_id: Mapped[str]
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    total_events: Mapped[int]


class Session(Entity):
    __tablename__ = "sessions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    visitor_id: Mapped[UUID]
    started_at: Mapped[datetime]
    last_at: Mapped[datetime]
    pageviews: Mapped[int]
    entry_path: Mapped[str | None]
    source: Mapped[str | None]
    medium: Mapped[str | None]


class Event(Entity):
    __tablename__ = "events"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID]
    visitor_id: Mapped[UUID | None]
    session_id: Mapped[UUID | None]
    occurred_at: Mapped[datetime]
    event_type: Mapped[str]
    anonymous_id: Mapped[str | None]
    url: Mapped[str | None]
    path: Mapped[str | None]
    title: Mapped[str | None]
    referrer: Mapped[str | None]
    source: Mapped[str | None]
    medium: Mapped[str | None]
    device_type: Mapped[str | None]
    browser: Mapped[str | None]
    os: Mapped[str | None]
    language: Mapped[str | None]
    screen: Mapped[str | None]
    timezone: Mapped[str | None]
    properties: Mapped[dict[str, Any]]


COLUMNS = [column.name for column in Event.__table__.columns]


def _sessions() -> async_sessionmaker[AsyncSession]:
    url = os.environ["BENCH_DATABASE"].replace("postgresql://", "postgresql+asyncpg://", 1)
    return async_sessionmaker(
        create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0), expire_on_commit=False
    )


def _entity(*values: Any) -> Event:
    return Event(**dict(zip(COLUMNS, (*values[:-1], msgspec.json.decode(values[-1])), strict=True)))


def _orm() -> FastAPI:
    app, sessions = FastAPI(), _sessions()

    @app.post(PATH, status_code=202)
    async def event(body: PydanticBody, request: FastAPIRequest) -> None:
        async with sessions() as session, session.begin():
            session.add(_entity(*_event(body, request, datetime.now(UTC), None)))

    return app


def _orm_pipeline() -> FastAPI:
    app, sessions = FastAPI(), _sessions()

    @app.post(PATH, status_code=202)
    async def event(body: PydanticBody, request: FastAPIRequest) -> None:
        meaning = understand(body, request.headers.get("user-agent"))
        now, anonymous_id = datetime.now(UTC), request.cookies.get("_ga_anon")
        async with sessions() as db, db.begin():
            if await db.get(Receipt, body.event_id) is not None:
                return
            db.add(Receipt(id=body.event_id, received_at=now))
            asked = select(Visitor).where(Visitor.anonymous_id == anonymous_id).with_for_update()
            visitor = await db.scalar(asked)
            if visitor is None:
                new = {"id": uuid4(), "anonymous_id": anonymous_id, "total_events": 0}
                await db.execute(
                    upsert(Visitor)
                    .values(**new, first_seen_at=now, last_seen_at=now)
                    .on_conflict_do_nothing()
                )
                visitor = (await db.scalars(asked)).one()
            live = select(Session).where(Session.visitor_id == visitor.id, Session.last_at > now - TIMEOUT)
            session = await db.scalar(live.order_by(Session.last_at.desc()).limit(1))
            if session is None:
                session = Session(
                    id=uuid4(), visitor_id=visitor.id, started_at=now, pageviews=0, entry_path=meaning.path,
                    source=meaning.source.platform, medium=meaning.source.medium,
                )  # fmt: skip
                db.add(session)
            session.last_at, session.pageviews = now, session.pageviews + 1
            visitor.last_seen_at, visitor.total_events = now, visitor.total_events + 1
            db.add(_entity(*_event(body, request, now, meaning, visitor.id, session.id)))

    return app


_MADE = {
    "insert": lambda: _asyncpg_app(_insert),
    "transaction": lambda: _asyncpg_app(_transaction),
    "orm": _orm,
    "orm_pipeline": _orm_pipeline,
}


def __getattr__(name: str) -> Any:
    if name not in _MADE:
        raise AttributeError(name)
    return _MADE[name]()
