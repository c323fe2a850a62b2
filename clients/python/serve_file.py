#!/usr/bin/env python3
"""Serves one file to one HTTP client, through a tunnel of a Tristero proxy.

Usage: serve_file.py PROXY_URL FILE

It is the Tristero interface in an example: ask for a tunnel, connect out to
the URI, ask for the address to advertise, and serve whoever comes there over
the connection that was made.
"""
import http.server
import socket
import sys
import urllib.parse
import xmlrpc.client


class FileHandler(http.server.BaseHTTPRequestHandler):
    """Answers any GET with the file, and then ends."""

    def do_GET(self):
        with open(sys.argv[2], "rb") as file:
            content = file.read()
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main():
    proxy = xmlrpc.client.ServerProxy(sys.argv[1])

    server_uri = proxy.Tunnel.openTunnel()                  # tcp://proxy:8010
    here = urllib.parse.urlsplit(server_uri)
    connection = socket.create_connection((here.hostname, here.port))

    client_uri = proxy.Tunnel.getTunnelAddress(server_uri)  # tcp://proxy:8011
    print("http" + client_uri.removeprefix("tcp") + "/", flush=True)

    # What comes over the connection is what the client sends.
    FileHandler(connection, ("client", 0), None)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):
        pass
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main()
