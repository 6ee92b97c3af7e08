"""The second process that looks whether Dagster lives: it imports no Dagster, and tells people by ways of its own.

`looking` finds facts, `judging` decides what is trouble, `remembering` keeps what was told, `telling` and
`recording` make it known, and `watching` is the loop.
"""
