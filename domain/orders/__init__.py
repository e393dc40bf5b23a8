"""From a form to an order, and what its buyer or organiser may do with it afterwards.

It promises: one form makes one order, however often it is sent; nobody pays another price than they saw; an
order that ends unpaid gives its stock back and mails its buyer.

Others call `placing.place`, `managing.find`, `managing.cancel` and `managing.pay_again`,
`top_ups.start_top_up`, `publishing.publish`, `event_cancellation.cancel`.
"""
