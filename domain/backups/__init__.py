"""Backups of the whole database, and the way back.

Others call `taking.take`, `taking.take_if_due` and `taking.last_good`; `commands.restore` and
`commands.check`; `programs.find`, and `keys.fingerprints`.
"""
