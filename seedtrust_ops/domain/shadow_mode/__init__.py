"""Shadow mode: what each job would have done, decided by its own code in transactions that are always rolled back.

`comparing/` sets the decisions beside what the legacy systems did. Nothing here is used while a job is live.
"""
