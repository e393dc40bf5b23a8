"""A client that a public generator makes of the API's document, and an entry's whole way through it."""
