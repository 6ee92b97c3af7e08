"""Runs long-lived processes: starts them in order, restarts them when they crash, and leaves none behind.

Production uses it for `seedtrust-ops worker`. What the processes do is defined in their own packages.
"""
