"""Account balances: weekly snapshot, low-balance alerts and accounting checks."""
