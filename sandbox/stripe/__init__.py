"""An imitation of Stripe's HTTP API as the pinned SDK sees it, and of its hosted payment page.

wire.py       form encoding and errors, as they travel
gate.py       what every request must bring: bearer, version, readable parameters, key
params.py     each request against the SDK's own parameter types
api.py        the way of a request, and the routes
lists.py      pages, filters, expansion
checkout.py   what a Checkout Session may be created with; intents.py: a PaymentIntent
domains.py    the hosts on which wallets' buttons may stand
objects.py    the API's objects, every field of them; account.py: the account they belong to
books.py      objects, events and scheduled work, kept together
world.py      what happens to payments: confirm, decline, expire
reversals.py  what happens to their money afterwards: refunds, disputes
cards.py, currencies.py  the test cards; amounts and what Stripe takes
hosted.py     the payment page
browser.py    what Stripe.js does in a browser: a stand-in script, its button, 3D Secure
dashboard.py  what /control does to Stripe's payments
"""
