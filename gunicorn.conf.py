"""Read by gunicorn at its start. The rest of its settings are on the Procfile's command line.

Each web process counts requests by itself; the counts are shared through files in a directory of this
start's own, so that /metrics tells the sum whichever process answers it.
"""

import gc
import os
import shutil
import tempfile

# Everything is imported once, before the web processes part: the first page comes sooner.
preload_app = True

# Reads requests whole before a thread is given to them; what it allows is in that file.
worker_class = "serving.WebWorker"

_shared = tempfile.mkdtemp(prefix="kassa-metrics-")
# Set before the package is first imported, which is when it chooses how to count.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = _shared

from prometheus_client import multiprocess  # noqa: E402


def pre_fork(server, worker):  # type: ignore[no-untyped-def]
    """Keep what all web processes share out of the garbage collector's rounds, which would copy its pages."""
    gc.collect()
    gc.freeze()


def child_exit(server, worker):  # type: ignore[no-untyped-def]
    """A web process ended: its gauges end with it, its counts stay in the sum."""
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server):  # type: ignore[no-untyped-def]
    shutil.rmtree(_shared, ignore_errors=True)
