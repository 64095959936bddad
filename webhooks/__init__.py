"""Webhooks: outgoing deliveries (signed, ordered, guarded); `webhooks.incoming` is the receiver, an app of its own."""
