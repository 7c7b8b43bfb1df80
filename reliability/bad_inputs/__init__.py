"""Inputs that are bad, or only odd, with the command that meets each and what must come of it.

A file a kind of input, each with its `CASES`.
"""
