"""The sandbox bank: bank_api.yaml served with a ledger of its own, and every way a bank can fail on order."""
