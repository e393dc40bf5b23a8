"""An imitation of SumUp's HTTP API as the pinned SDK sees it, of its hosted payment page and its OAuth.

shapes.py     the fields, types and words of each operation: requests are checked by it, answers in tests
wire.py       errors, as they travel
api.py        the way of a request, and the routes; history.py: the list of transactions
objects.py    the API's answers, every field of them
access.py     API key, OAuth tokens, and the options of /control/settings
oauth.py      /authorize, where a merchant allows the app, and /token
merchants.py  the merchants there are
books.py      checkouts, transactions, events, kept together
world.py      what happens to them: pay, confirm, refund, expire
cards.py, money.py  the test cards; amounts, currencies, and the amounts that fail
hosted.py     the payment page
dashboard.py  what /control does to SumUp's payments and merchants
"""
