"""A random but repeatable history of everything that can happen to transfers, judged by the checker at every step."""
