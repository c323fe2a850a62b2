#!/usr/bin/env python3
"""What blocks, or may never end, is waited for no longer than anybody wants it."""
import asyncio
import socket
import threading
import time

import common  # noqa: F401, finds what follows
from harness import WAIT_S, Case, main
from tristero_tunnel.waiting import in_thread, within


async def pass_on(future):
    return await future


class Within(Case):
    def test_what_comes_in_time_is_returned_and_an_error_raised(self):
        async def fail():
            raise OSError("as it came")

        self.assertEqual(asyncio.run(within(WAIT_S, asyncio.sleep(0, "come"))), "come")
        with self.assertRaisesRegex(OSError, "as it came"):
            asyncio.run(within(WAIT_S, fail()))

    def test_what_does_not_is_cancelled(self):
        async def test():
            future = asyncio.get_running_loop().create_future()
            with self.assertRaises(asyncio.TimeoutError):
                await within(0.01, pass_on(future))
            await asyncio.sleep(0)
            self.assertTrue(future.cancelled())

        asyncio.run(test())

    def test_it_is_cancelled_also_just_as_the_result_comes(self):
        async def test(outcome):
            come = asyncio.get_running_loop().create_future()
            waiting = asyncio.ensure_future(within(WAIT_S, pass_on(come)))
            await asyncio.sleep(0.01)
            outcome(come)
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await waiting

        for turns in (0, 1):
            for outcome in (lambda come: come.set_result("come"),
                            lambda come: come.set_exception(OSError("as it came"))):
                with self.subTest(turns=turns):
                    asyncio.run(test(outcome))


async def until_closed(connection):
    while connection.fileno() >= 0:
        await asyncio.sleep(0.01)


class InThread(Case):
    def drop_a_connection(self, turns):
        """That came while the one that waited for it was cancelled."""
        ends = socket.socketpair()
        self.addCleanup(ends[1].close)
        ready = threading.Event()

        def connect():
            ready.wait(WAIT_S)
            return ends[0]

        async def test():
            waiting = asyncio.ensure_future(within(WAIT_S, in_thread(connect)))
            await asyncio.sleep(0.01)
            ready.set()
            if turns is not None:
                time.sleep(0.1)         # the loop is told
                for _ in range(turns):
                    await asyncio.sleep(0)
            waiting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await waiting
            await asyncio.wait_for(until_closed(ends[0]), WAIT_S)

        asyncio.run(test())

    def test_a_connection_that_nobody_waits_for_any_more_is_closed(self):
        for turns in (None, 0, 1, 2):
            with self.subTest(turns=turns):
                self.drop_a_connection(turns)


if __name__ == "__main__":
    main()
