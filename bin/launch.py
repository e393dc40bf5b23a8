"""Started by the shell scripts beside it as `python bin/launch.py COMMAND ...`."""

from __future__ import annotations

import signal
import sys

from launcher import command_flask, command_run, command_test, say

COMMANDS = {"run": command_run.main, "test": command_test.main, "flask": command_flask.main}


def main() -> int:
    """Dispatch one command; a Stop becomes its words on standard error and exit code 1."""
    signal.signal(signal.SIGTERM, say.interrupt)
    # A shell has what it starts in the background ignore SIGINT, and Python leaves that so.
    signal.signal(signal.SIGINT, say.interrupt)
    # Ignored only where somebody wants this to outlive their terminal: `nohup ./bin/run &`.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, say.interrupt)
    try:
        return COMMANDS[sys.argv[1]](sys.argv[2:])
    except say.Stop as stop:
        say.problem(str(stop))
        return 1
    except KeyboardInterrupt:
        say.problem("Stopped before it was ready.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
