"""Runs asynchronous work on an event loop of its own thread, so that an interruption can end it in good order.

Dagster ends a run by raising in the main thread wherever that stands; inside an event loop such an exception is
lost or tears requests apart. Here the main thread only waits.
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
    """Run `work` to its end and return what it returns.

    Args:
        work: makes the coroutine; called on the loop's thread.
        interrupt: called on the loop when this thread is interrupted, to have the work end soon and well;
            None cancels it. Its end is waited for before the interruption goes on.
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
