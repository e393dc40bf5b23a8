"""The door of an event: who may stand there, and what a scan comes to.

It promises: a ticket lets in once, whoever scans it where, and a scan that is sent again gets the same
verdict.

Others call `staff.enter`, `check_in.scan`, `check_in.undo` and `check_in.search`.
"""
