"""Policies: their shape, how they are read, what is wrong with them."""
