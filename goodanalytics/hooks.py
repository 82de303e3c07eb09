"""
What the host asked to be told.

`link_click` hooks run inside the redirect, all at once, within one budget, and may set cookies; a slow or failing one is cut
off and reported. A plain function among them runs in a thread, for one that blocks would hold up everybody's redirects and
could not be cut off; it runs on there, so `THREADS` that never end leave no room for others. All other hooks run after the
commit, in the event loop, each in a task of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from goodanalytics.core.hits import Hit
from goodanalytics.core.plan import Outcome

CLICK_BUDGET = 0.050  # seconds, for all `link_click` hooks together
THREADS = 4


@dataclass(frozen=True, slots=True)
class Happened:
    """
    What a hook is called with.

    Attributes:
        name: The hook's name, which is the event type.
        hit: What was done.
        outcome: What became of it; `None` in `link_click`, which runs before anything is written.
    """

    name: str
    hit: Hit
    outcome: Outcome | None


Hook = Callable[[Happened], "Awaitable[Any] | Any"]
"""A function or coroutine function. What a `link_click` hook returns is a mapping of cookies to set, or `None`."""


class Hooks:
    """The host's functions by the name of what they wait for."""

    def __init__(self, report: Callable[[BaseException, str], None]) -> None:
        self._report = report
        self._waiting: dict[str, list[Hook]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: ThreadPoolExecutor | None = None

    def on(self, name: str) -> Callable[[Hook], Hook]:
        """
        Register the decorated function for *name*: an event type, such as `sale` or `link_click`.

        `webhook_disabled` is called with a `store.webhooks.Disabled`: which webhook was switched off by its failures, and why.

        A plain function for `link_click` is called in a thread: there is no running event loop in it. Write `async def` for one
        that only awaits.

        >>> from goodanalytics.hooks import Hooks
        >>> hooks = Hooks(report=lambda error, doing: None)
        >>> @hooks.on("sale")
        ... async def thank(happened): ...
        """

        def register(hook: Hook) -> Hook:
            self._waiting[name].append(hook)
            return hook

        return register

    def off(self, name: str, hook: Hook) -> None:
        """Take *hook* back; nothing happens when it is not registered."""
        if hook in self._waiting[name]:
            self._waiting[name].remove(hook)

    def is_waited_for(self, name: str) -> bool:
        """Whether any function is registered for *name*."""
        return bool(self._waiting.get(name))

    def notify(self, hits: Sequence[Hit], outcomes: Sequence[Outcome]) -> None:
        """Start the hooks of what was recorded. Call after the commit."""
        for hit, outcome in zip(hits, outcomes, strict=True):
            name = str(hit.event_type)
            if outcome.status != "recorded" or name == "link_click":
                continue
            for hook in self._waiting.get(name, ()):
                self._begin(name, hook, Happened(name, hit, outcome))

    def announce(self, name: str, what: object) -> None:
        """Start the hooks of *name* with *what*, which happened without a hit. Call after the commit."""
        for hook in self._waiting.get(name, ()):
            self._begin(name, hook, what)

    async def gather(self, hit: Hit, budget: float = CLICK_BUDGET) -> list[Any]:
        """Run the `link_click` hooks side by side and return what those answered that were done within *budget* seconds."""
        waiting = self._waiting.get("link_click", ())
        if not waiting:
            return []
        happened = Happened("link_click", hit, None)
        tasks = [asyncio.ensure_future(self._beside(hook, happened)) for hook in waiting]
        done, late = await asyncio.wait(tasks, timeout=budget)
        for task in late:
            task.cancel()
            self._report(
                TimeoutError(f"a link_click hook took longer than {budget * 1_000:.0f} ms"), "running hooks"
            )
        for task in done:
            if (error := task.exception()) is not None:
                self._report(error, "running hooks")
        return [task.result() for task in tasks if task in done and task.exception() is None]

    async def settle(self) -> None:
        """Wait for the hooks that are still running."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _beside(self, hook: Hook, happened: Happened) -> Any:
        """What *hook* answers, without ever holding up the event loop."""
        if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
            return await _result(hook, happened)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "goodanalytics-hook")
        context = contextvars.copy_context()
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, context.run, hook, happened)
        return await answer if isinstance(answer, Awaitable) else answer

    def _begin(self, name: str, hook: Hook, what: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._call(name, hook, what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, name: str, hook: Hook, what: Any) -> None:
        try:
            await _result(hook, what)
        except Exception as error:  # noqa: BLE001  # a host's function may raise anything, and must not stop the worker
            self._report(error, f"running a hook for {name}")


async def _result(hook: Hook, what: Any) -> Any:
    answer = hook(what)
    return await answer if isinstance(answer, Awaitable) else answer
