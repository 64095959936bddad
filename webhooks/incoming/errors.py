"""What is wrong with a request that is no event."""


class BadEvent(ValueError):
    """It does not come from the provider, or cannot be stored. The text says why, and is answered with the 400."""
