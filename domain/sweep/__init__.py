"""The backstop: everything that is due is claimed in batches, read, and given to settle.

It promises: any number of sweeps share the work; no account, row or duty keeps another one waiting; a run
that was cut off says so.

Others call `sweeping.run`.
"""
