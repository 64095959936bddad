"""Webhooks: outgoing deliveries (signed, ordered, guarded), incoming receiver (verified, deduplicated)."""
