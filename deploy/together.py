"""Railway's one service: honcho runs the Procfile's processes side by side, and ends all when one ends.

From Python 3.14 on, multiprocessing has helpers of its own start honcho's processes, and they go on for a
moment after honcho has ended: a container that is not yet gone. Forking needs no helpers, and no thread runs
here that a fork could lose.
"""

from __future__ import annotations

import multiprocessing

from honcho.command import main

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
