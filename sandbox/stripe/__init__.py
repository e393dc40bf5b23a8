"""An imitation of Stripe's HTTP API as the pinned SDK sees it, and of its hosted payment page.

wire.py     form encoding and errors, as they travel
params.py   each request against the SDK's own parameter types
objects.py  the API's objects, every field of them
world.py    what happens to them: confirm, decline, expire, refund, dispute
lists.py    pagination, filters, expansion
api.py      the HTTP edge: bearer, version, idempotency, routes
checkout.py what a Checkout Session may be created with
hosted.py   the payment page
dashboard.py  what /control does to Stripe's payments
"""
