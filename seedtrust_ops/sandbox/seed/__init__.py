"""A fictional company generated from a seed, for laptops, the demo and tests, and new batches of its requests.

No real person, account or case is used.
"""
