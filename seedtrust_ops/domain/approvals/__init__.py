"""Automatic approval of disbursement requests: by their date, or by the rules of the bulk auto-approver.

`rules` decides and has no side effects. `by_date` and `by_rule` load rows and record approvals with their emails.
"""
