"""tristero_tunnel: serves through a tunnel of a Tristero proxy.

    tunnel = await Tunnel.open("http://proxy:8000/RPC2")
    print(tunnel.address)
    async for stream in tunnel:
        ...                     # stream.read(), stream.write(), stream.finish()

The command is "python -m tristero_tunnel expose 8080". Both go by way of the proxies that
the environment names, such as ALL_PROXY=socks5h://127.0.0.1:9050.
"""
from .carrier import Stream
from .errors import TunnelError
from .tunnel import Tunnel

__all__ = ["Stream", "Tunnel", "TunnelError"]
__version__ = "0.1.0"
