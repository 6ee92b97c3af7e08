"""Watches the jobs from outside: every run mirrored into JobRun, and later what nobody may miss."""
