"""Serves this folder alone, with the Content-Security-Policy that `hark` sends too.

usage: serve.py [[HOST:]PORT]   (default 127.0.0.1:8000; port 0: any free one)
"""

import functools
import http.server
import json
import pathlib
import re
import sys
import urllib.parse

FOLDER = pathlib.Path(__file__).resolve().parent


def services(host):
    """The addresses the page connects to: config.json, else its own host with the usual ports."""
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    name = re.sub(r":\d+$", "", host)
    for key, port in (("chat", 8080), ("sse", 8081)):
        address = config.get(key) or f"http://{name}:{port}"
        parts = urllib.parse.urlsplit(address)
        if parts.netloc:
            yield f"{parts.scheme or 'http'}://{parts.netloc}"


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
    }

    def end_headers(self):
        host = self.headers.get("Host", "") if hasattr(self, "headers") else ""
        if not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", host):
            host = "localhost"
        connect = " ".join(["'self'", *services(host)])
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            f"connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()


def main():
    host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000").rpartition(":")
    if not port.isdigit():
        sys.exit(__doc__)
    handler = functools.partial(Handler, directory=str(FOLDER))
    try:
        server = http.server.ThreadingHTTPServer((host or "127.0.0.1", int(port)), handler)
    except OSError as error:
        sys.exit(f"cannot listen on {host or '127.0.0.1'}:{port}: {error.strerror}")
    print(f"demo http://{server.server_address[0]}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


main()
