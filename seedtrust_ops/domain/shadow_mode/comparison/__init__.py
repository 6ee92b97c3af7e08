"""Sets what jobs in shadow decided beside what the legacy systems did in the same time, a file a subject.

Everything is read from the platform's own columns, for nothing else is left of what the legacy systems did; of letters,
which leave no trace there, from the mail provider's log.
"""
