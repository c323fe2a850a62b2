"""errors: what went wrong, for people."""
import asyncio
import socket


class TunnelError(Exception):
    """The proxy could not be called, or refused. fault_code is that of its fault, or 0."""

    def __init__(self, text: str, fault_code: int = 0) -> None:
        super().__init__("".join(c if " " <= c <= "~" else "?" for c in text))
        self.fault_code = fault_code


def reason(error: BaseException) -> str:
    """What an error of the system says."""
    if isinstance(error, (socket.timeout, asyncio.TimeoutError)):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
