"""How money becomes goods: start, reconcile, settle.

A payment is started (`start.open_at_provider`), asked about by every door (`asking.reconcile`), and what its
provider says is applied to it (`settling.settle`). Only settling.py writes `payment.state`. See
docs/payments.md.
"""
