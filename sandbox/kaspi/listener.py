"""The sandbox's second door, by TLS: the one at which r2 and r3 ask for a client certificate."""

from __future__ import annotations

import threading

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from sandbox.kaspi.certificates import Certificates


class _Handler(WSGIRequestHandler):
    """As the first door's: connections stay open, and /control/calls is the log."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""

    def log_error(self, format: str, *args: object) -> None:
        """Nothing: a handshake that fails is what is tried out here."""


class Listener:
    """The same application as behind the first door. `port` 0 takes one that is free.

    A handshake happens as a connection's own thread reads from it, and not as it is accepted: somebody who
    connects and says nothing keeps nobody else out.
    """

    def __init__(self, app: Flask, certificates: Certificates, port: int) -> None:
        self._server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Handler)
        # As the server would do it by itself, but for the last word.
        self._server.ssl_context = certificates.context()
        self._server.socket = self._server.ssl_context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """https://127.0.0.1:<port>."""
        return f"https://127.0.0.1:{self._server.port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=2)
        self._server.server_close()
