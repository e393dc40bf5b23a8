"""People: accounts, their roles, and organisers.

It promises: a stranger learns from no answer who has an account; whoever has proven an address gets the
orders of that address, and nobody else does.

Others call `accounts.find`, `accounts.register` and `accounts.authenticate`, `organisers.of` and
`organisers.event_for`.
"""
