"""Inputs that are bad, or just odd, each with a command and its expected outcome.

One file per kind of input, each with its `CASES`.
"""
