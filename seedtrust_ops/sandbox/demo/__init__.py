"""The demo: the real daemon sends a seeded company's batches while the sandbox bank and the processes fail.

It ends by comparing SeedTrust's ledger with the bank's, to show that every cent left exactly once.
"""
