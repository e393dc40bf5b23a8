"""Mail and alerts owed: rows written in the transaction of their cause, delivered later, at least once.

It promises: what was committed is mailed; one cause is one mail; nothing is sent inside a transaction.

Others call `outbox.stage` and, after the commit, `queue.soon("deliver_mail")`. `mail_kinds.py` has the
words of each kind, `alerts.py` those for operators, `transport.py` the way out.
"""
