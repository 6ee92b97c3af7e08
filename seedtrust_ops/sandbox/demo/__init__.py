"""The demo: a seeded company's batches sent by the real daemon through every fault of the sandbox bank.

It proves with both ledgers that each cent went out once; how a batch is sent is not decided here.
"""
