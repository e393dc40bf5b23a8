"""The providers' own HTTP APIs, small, stateful and local, with seeded faults; and a mail catcher.

`python -m sandbox` runs it. Nothing of Kassa imports it, and it imports nothing of Kassa: adapters reach it
only by a base URL, so that the code that talks to the sandbox is the code that talks to the provider.
"""
