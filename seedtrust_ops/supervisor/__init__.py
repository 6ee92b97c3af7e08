"""Long-lived processes under one supervisor: started in order, started again when they die, never left behind.

Production uses it for `seedtrust-ops worker`; what the processes do is not its business.
"""
