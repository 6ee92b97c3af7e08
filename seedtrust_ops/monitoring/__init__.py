"""Watches the jobs from outside: every run mirrored into JobRun, the queue kept fresh, and trouble told."""
