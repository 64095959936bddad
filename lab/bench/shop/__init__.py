"""The whole shop under measurement: three subjects that place the same orders and wait for the same effects."""
