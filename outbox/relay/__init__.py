"""The relay: publishes committed messages, and publishes again what the broker or a worker lost."""
