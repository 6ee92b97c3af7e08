"""Balances: what every active case's account holds, which are below their minimum, and whether the books add up."""
