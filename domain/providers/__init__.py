"""Payment providers: the contract, its registry, and an adapter each for Stripe, SumUp and the wallet.

It promises: an adapter says in Kassa's words what a provider said (`contract.Report`), or raises
`ProviderError`; it decides nothing, keeps no state of ours, and imports neither models nor the database.

Others call `registry.get`, and the methods of the adapter that it gives: see `contract.Provider` and
docs/adding-a-provider.md.
"""
