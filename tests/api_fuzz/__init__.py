"""The API, attacked through its own document by Schemathesis.

`hooks.py` is loaded by Schemathesis: who calls, what ids there are, what a buyer does at the bank, and what
every refusal must have. `attack.py` starts it, and reads what it came to.
"""
