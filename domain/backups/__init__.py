"""Backups of the whole database, and the way back.

Others call `taking.take`, `taking.take_if_due` and `taking.last_good`; `commands.restore` and
`commands.check`; `programs.find`, and `keys.fingerprints`; `forgotten.keep_if_it_can_be`, as somebody was
forgotten; `lives.notice` before each sweep, and `lives.enter` where a host has put the database back.
"""
