"""Secrets, and proof of who somebody is: what every way in stands on.

It promises: a secret is kept sealed, or only its hash is; what is compared takes the same time whatever it
is; guesses are counted, and few. Of roles it knows which may let a program do what; nothing of money.

How often a password may be guessed, and what a right one is worth meanwhile, is said in guesses.py; what is
shown beside it, in second_factors.py and passkeys.py.

Others call `passwords.hashed` and `passwords.right`, `one_time_links.make` and `one_time_links.use`,
`rate_limits.spent` and `rate_limits.count`, `guesses.begin`, `devices.known`, `logins.begin` and
`logins.end`, `second_factors.prove`, `keyring.seal` and `keyring.unseal`; for programs `api_tokens.begin` and
`api_tokens.whose`, `api_keys.whose` and `api_keys.allows`, and `return_origins.check` for where payers may be
sent back to.
"""
