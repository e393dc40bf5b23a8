"""What is on sale: events and their ticket types, pictures, prices, and through whom they can be paid for.

It promises: no rule of selling is written anywhere else; nothing that has orders is deleted. Stock is not
moved here (`payments/fulfilment.py` does that).

Others call `events.event`, `events.create_event` and `events.change_both`, `availability.states_of`,
`payees.receiver`, `prices.changes`.
"""
