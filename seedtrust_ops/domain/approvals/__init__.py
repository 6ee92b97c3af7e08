"""Approves disbursement requests without a person: by the date on them, or by the rules of the bulk auto-approver.

`rules` decides and is pure; `by_date` and `by_rule` bring it the rows and record what is approved with its letters.
"""
