"""The outside world in one process: gateway, warehouse, CRM, merchants and a mail server, each with fault
dials.

It keeps its own durable ledger and never reads the app's database, so what it says happened is independent
evidence: the invariants ("one capture an order") are checked against it and not against the app's own
records.
"""
