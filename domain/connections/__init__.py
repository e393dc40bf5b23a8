"""Organisers' own accounts at payment providers, and the right to speak for them.

It promises: tokens are sealed at rest, and renewed in time by exactly one of those who ask.

Others call `linked_accounts.authorize_url`, `linked_accounts.finish` and `linked_accounts.disconnect`; the
registry of providers asks credentials.py.
"""
