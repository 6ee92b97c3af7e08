"""A company made up from a seed, for laptops, the demo and tests, and new batches of its approved requests.

Nothing here is about a real person, account or case.
"""
