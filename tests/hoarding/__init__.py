"""A sale with a waiting line and a hoarder behind the same address: who gets tickets, and when."""
