"""Secrets, and proof of who somebody is: what every way in stands on.

It promises: a secret is kept sealed, or only its hash is; what is compared takes the same time whatever it
is; guesses are counted, and few. Of roles it knows which may let a program do what; nothing of money.

Others call `passwords.hashed` and `passwords.right`, `one_time_links.make` and `one_time_links.use`,
`rate_limits.spent` and `rate_limits.count`, `logins.begin` and `logins.end`, `keyring.seal` and
`keyring.unseal`; for programs `api_tokens.begin` and `api_tokens.whose`, `api_keys.whose` and
`api_keys.allows`, and `return_origins.check` for where payers may be sent back to.
"""
