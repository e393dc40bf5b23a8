"""The tables, a file an area: columns, constraints, and the tables of states beside them.

Nothing here queries in order to decide, commits, speaks HTTP or sends mail. Amounts are integers in the
currency's minor unit beside an ISO 4217 code; times are timezone-aware UTC and are always given by the
caller from `domain.clock.now()`, so no column has a default that asks the wall clock or the database.

Tables do not follow the floors of `domain/`: people own orders, and orders own payments, whatever calls what.
So another file's table is named by a string, and imported for the type checker alone. `models.py` lists them.
"""
