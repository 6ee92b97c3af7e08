"""Shadow mode: records what each job would have done, decided by its own code in transactions that are rolled back.

`comparison/` compares the decisions with what the legacy systems did. Nothing here is used while a job is live.
"""
