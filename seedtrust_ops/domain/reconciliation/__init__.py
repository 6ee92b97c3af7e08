"""Daily reconciliation of Huntington transfers: the day's batches, the comparison with the bank, and a 30-day chart."""
