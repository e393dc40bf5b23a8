"""How money becomes goods: start, reconcile, settle. And how it goes back.

It promises: only settling.py writes `payment.state`; what was paid is fulfilled once, or waits in the money
inbox for a person; a refund is an intent that is committed before its provider is called.

Others call `starting.open_at_provider`, `reconciling.reconcile`, `settling.settle`, `refunds.request`,
`incident_decisions.resolve`. See docs/payments.md.
"""
