"""The sandbox bank: implements bank_api.yaml with a ledger of its own, and injects every fault a bank can have."""
