"""The command: python -m tristero_tunnel expose 8080."""
import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import Callable, List, Optional

from . import __version__
from .errors import TunnelError
from .expose import expose
from .outlet import Outlet
from .service import Service
from .tunnel import Tunnel

OK, FAILED, USAGE = 0, 1, 2
STDOUT, STDERR = 1, 2
CARRIERS_MAX = 16
TIMEOUT_MAX_S = 3600

log = logging.getLogger("tristero_tunnel")


def _number(highest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= highest:
            raise argparse.ArgumentTypeError(
                f'got "{text}", expected a whole number from 1 to {highest}')
        return int(text)
    return read


def _read_arguments(words: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tristero_tunnel",
        description="Makes a service reachable through a tunnel of a Tristero proxy.")
    parser.add_argument("--version", action="version", version=f"tristero_tunnel {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="expose", required=True)
    command = commands.add_parser(
        "expose", help="exposes a service to any number of clients",
        description="Opens a tunnel, prints the address for clients, and relays each client "
                    "to the service. After a loss it comes back to the same address.")
    command.add_argument("service", metavar="[HOST:]PORT | unix:/PATH",
                         help="what is exposed; HOST is 127.0.0.1 if it is left out")
    command.add_argument("--proxy", metavar="URL", default=os.environ.get("TRISTERO_PROXY"),
                         help="the proxy's XML-RPC; else the environment's TRISTERO_PROXY")
    command.add_argument("--carriers", metavar="N", type=_number(CARRIERS_MAX), default=1,
                         help="connections to the proxy, each for 127 clients at once (1)")
    command.add_argument("--timeout", metavar="S", type=_number(TIMEOUT_MAX_S), default=30,
                         help="seconds to wait for the proxy's answers and connections (30)")
    arguments = parser.parse_args(words)
    if not arguments.proxy:
        command.error("no proxy is given: expected --proxy URL, or TRISTERO_PROXY in the "
                      "environment, such as http://127.0.0.1:8000/RPC2")
    try:
        arguments.service = Service(arguments.service)
    except ValueError as error:
        command.error(str(error))
    return arguments


async def _serve(arguments: argparse.Namespace, output: Outlet) -> None:
    scheme = await arguments.service.scheme()

    def print_address(address: str) -> None:
        output.write(f"{address}\n" if scheme == "tcp" else f"{scheme}{address[len('tcp'):]}/\n")

    tunnel = await Tunnel.open(arguments.proxy, arguments.carriers, arguments.timeout,
                               print_address)
    async with tunnel:
        print_address(tunnel.address)
        await expose(tunnel, arguments.service, arguments.carriers)


async def _run(arguments: argparse.Namespace) -> int:
    """Serves until a signal comes, or an address can't be printed."""
    loop = asyncio.get_running_loop()
    failures: List[OSError] = []

    def fail(error: OSError) -> None:
        failures.append(error)
        with contextlib.suppress(RuntimeError):     # the loop has ended
            loop.call_soon_threadsafe(serving.cancel)

    output = Outlet(STDOUT, fail)
    serving = asyncio.ensure_future(_serve(arguments, output))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        output.drain()
    except ValueError as error:
        log.error("%s", error)
        return USAGE
    except TunnelError as error:
        log.error("%s", error)
        return FAILED
    if failures:
        log.error("can't write to standard output: %s", failures[0].strerror)
    return FAILED if failures else OK


def main(words: Optional[List[str]] = None) -> int:
    errors = Outlet(STDERR)
    logging.basicConfig(stream=errors, level=logging.INFO, format="tristero-tunnel: %(message)s")
    try:
        return asyncio.run(_run(_read_arguments(words)))
    finally:
        errors.drain()


if __name__ == "__main__":
    sys.exit(main())
