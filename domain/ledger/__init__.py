"""Double entry: a transfer moves minor units from one account to another, once per key. And wallets.

It promises: rows are only added; the sum of all accounts is nothing; a wallet never goes below zero but by
what a provider took back.

Others call `transfers.post` and `transfers.balance`, `wallet.hold`, `wallet.capture` and `wallet.void`,
`agents.use`.
"""
