"""Money: the gateway client, refunds, invoices, bills, reconciliation against the gateway's ledger."""
