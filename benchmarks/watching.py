"""Watch one call: which of our functions it goes through, with what arguments, and how many opcodes each executes."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType, FunctionType
from typing import Any


@dataclass(slots=True)
class Called:
    """A function that was called on the way, with what it was called with the first time."""

    function: FunctionType
    depth: int
    arguments: dict[str, Any]
    times: int = 1


async def watched(run: Callable[[], Awaitable[Any]]) -> list[Called]:
    """Every function of ours that *run* calls, in order of its first call."""
    known = _functions()
    found: dict[Any, Called] = {}
    depth = 0

    def watch(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal depth
        function = known.get(frame.f_code)
        if function is None:
            return
        if event == "call":
            if frame.f_code in found:
                found[frame.f_code].times += 1
            else:
                # A scope is written into on the way.
                found[frame.f_code] = Called(
                    function, depth, {k: _kept(v) for k, v in frame.f_locals.items()}
                )
            depth += 1
        elif event == "return":
            depth -= 1

    sys.setprofile(watch)
    try:
        await run()
    finally:
        sys.setprofile(None)
    return list(found.values())


def _kept(value: Any) -> Any:
    """*value* as it is now: scopes and messages are written into on the way."""
    return (
        {k: list(v) if k == "headers" else v for k, v in value.items()} if _is_written_into(value) else value
    )


def _is_written_into(value: Any) -> bool:
    return isinstance(value, dict) and "type" in value


async def opcodes(run: Callable[[], Awaitable[Any]]) -> Counter[Any]:
    """How many opcodes of each function *run* executes: a count that does not depend on the machine or its load."""
    found: Counter[Any] = Counter()

    def watch(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            found[frame.f_code] += 1
        return watch

    sys.settrace(watch)
    try:
        await run()
    finally:
        sys.settrace(None)
    return found


def _functions() -> dict[Any, FunctionType]:
    """Our functions and methods by their code."""
    found: dict[Any, FunctionType] = {}
    modules = [m for name, m in sys.modules.items() if name.startswith("goodanalytics")]
    for module in modules:
        for value in list(vars(module).values()):
            members = list(vars(value).values()) if inspect.isclass(value) else [value]
            for member in members:
                plain = (
                    member.fget
                    if isinstance(member, property)
                    else inspect.unwrap(member)
                    if callable(member)
                    else None
                )
                if isinstance(plain, FunctionType):
                    found[plain.__code__] = plain
    return found


def alone(called: Called) -> Callable[[], Any] | None:
    """*called* as a call of its own; `None` for what cannot be called again."""
    code = called.function.__code__
    if code.co_flags & (
        inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    ):
        return None
    positional = [called.arguments[name] for name in code.co_varnames[: code.co_argcount]]
    named = {
        name: called.arguments[name]
        for name in code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    }
    where = next((i for i, value in enumerate(positional) if _is_written_into(value)), None)
    original = None if where is None else positional[where]

    def fresh() -> list[Any]:
        if where is not None:
            positional[where] = _kept(original)
        return positional

    if not code.co_flags & inspect.CO_COROUTINE:
        return lambda: called.function(*fresh(), **named)

    def driven() -> None:
        coroutine = called.function(*fresh(), **named)
        try:
            coroutine.send(None)
        except StopIteration:
            return
        coroutine.close()
        raise Waits

    return driven


class Waits(Exception):
    """A coroutine that waits for something cannot be timed alone."""
