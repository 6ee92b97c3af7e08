"""Stateful tests: random but repeatable histories of everything that can happen to transfers, checked at every step."""
