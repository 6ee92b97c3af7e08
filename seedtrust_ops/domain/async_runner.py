"""Runs async work on an event loop in its own thread, so that an interruption can end it cleanly.

Dagster ends a run by raising an exception in the main thread at any point. Inside an event loop such an exception gets
lost or breaks requests midway, so here the main thread only waits.
See docs/decisions/run-execution.md.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_in_loop(
    work: Callable[[], Coroutine[Any, Any, Result]], *, interrupt: Callable[[], None] | None = None
) -> Result:
    """Run `work` to completion and return its result.

    Args:
        work: creates the coroutine; called in the loop's thread.
        interrupt: called in the loop if this thread is interrupted, to end the work soon and cleanly; None cancels the
            work. The interruption continues once the work has ended.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Result]]] = Future()
    ended = Event()

    async def main() -> Result:
        task = asyncio.ensure_future(work())
        started.set_result((asyncio.get_running_loop(), task))
        return await task

    def run() -> Result:
        try:
            return asyncio.run(main())
        finally:
            ended.set()

    with ThreadPoolExecutor(1, thread_name_prefix="event-loop") as pool:
        future = pool.submit(run)
        try:
            return future.result()
        except BaseException:
            if not ended.is_set() and started.done():
                loop, task = started.result()
                loop.call_soon_threadsafe(interrupt or task.cancel)
                ended.wait()
            raise
