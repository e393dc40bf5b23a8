"""An imitation of Kaspi's QR API in its forms r1, r2 and r3, of its emulator, and of its calls to a biller.

There is no public contract of it: what is imitated is what merchants' programs agree on (see docs/kaspi.md),
and where they leave something open, /control/settings has a choice.

wire.py          the envelope in which everything is answered, and what is refused
books.py         devices, payments and returns, kept together
world.py         what happens to them: scan, confirm, fail, run out, go back
api.py           who asks, for what, and the routes
certificates.py  the authority, the server's certificate and the client's, made when they are first needed
listener.py      the second door, where a client certificate is asked for
biller.py        the calls to a biller: check, and pay
hosted.py        the page behind a code or a link, and the one that a biller's form leads to
dashboard.py     what /control does to Kaspi's payments
"""
