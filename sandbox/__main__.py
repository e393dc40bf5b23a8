"""`python -m sandbox`: one process, a thread a connection; Ctrl-C or SIGTERM ends it."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from types import FrameType

from werkzeug.serving import WSGIRequestHandler, make_server

from sandbox.app import Sandbox
from sandbox.settings import Refused, load


class Handler(WSGIRequestHandler):
    """Keeps connections open, sends answers at once, and keeps no log of its own (/control/calls does)."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # A connection that says nothing for so long is closed.
    timeout = 120

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: a line a request would drown what matters."""


def main() -> int:
    """Run until told to stop. Returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="sandbox: %(levelname)s %(message)s")
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    try:
        settings = load()
    except Refused as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 2
    sandbox = Sandbox(settings)
    try:
        # make_server ends the process by itself, with a clear line, where the port is taken.
        server = make_server("127.0.0.1", settings.port, sandbox.app, threaded=True, request_handler=Handler)
        sandbox.start()
    except OSError as error:
        print(
            f"sandbox: cannot listen on ports {settings.port} and {settings.smtp_port}: {error}",
            file=sys.stderr,
        )
        return 1
    stop = threading.Event()

    def stopping(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stopping)
    signal.signal(signal.SIGINT, stopping)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    print(f"sandbox: ready at {settings.public_url}/, SMTP on 127.0.0.1:{settings.smtp_port}", flush=True)
    stop.wait()
    sandbox.faults.stop()
    server.shutdown()
    sandbox.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
