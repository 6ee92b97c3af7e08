"""The health rules: plain questions to the database, each answered with findings, a file a subject.

`evaluating` makes alerts of findings; whom those are told to is `domain/alerting/`'s.
"""
