"""waiting: for what blocks, or may never end, and no longer than anybody wants it."""
import asyncio
import socket
import threading
from typing import Any, Awaitable, Callable, TypeVar

Result = TypeVar("Result")


async def within(timeout_s: float, awaitable: Awaitable[Result]) -> Result:
    """As asyncio.wait_for; but that, before Python 3.12, forgets that it was cancelled
    when the result comes at the same time."""
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait([task], timeout=timeout_s)
        if task.done():
            return task.result()
        raise asyncio.TimeoutError
    except (asyncio.CancelledError, asyncio.TimeoutError):
        _drop(task)
        raise


async def in_thread(function: Callable[[], Result]) -> Result:
    """Runs what blocks beside the loop. Nobody waits for the thread at the end."""
    loop = asyncio.get_running_loop()
    future: "asyncio.Future[Result]" = loop.create_future()

    def settle(result: Any, error: "BaseException | None") -> None:
        if future.done():
            _close(result)
        elif error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as caught:     # handed on
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:            # the loop has ended meanwhile
            pass

    threading.Thread(target=run, daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        _drop(future)
        raise


def _drop(future: "asyncio.Future[Any]") -> None:
    """Nobody waits for it any more."""
    future.cancel()
    future.add_done_callback(_close_result)


def _close_result(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled() and not future.exception():
        _close(future.result())


def _close(result: Any) -> None:
    if isinstance(result, socket.socket):
        result.close()
