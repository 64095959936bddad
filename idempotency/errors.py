"""Why a request with an Idempotency-Key is not answered by its view. `status` is the HTTP status of each."""


class IdempotencyError(Exception):
    """The base of them all; its text may be shown to the client."""

    status = 400
    #: Seconds after which repeating the request helps; None where it does not.
    retry_after_s: int | None = None


class InvalidKey(IdempotencyError, ValueError):
    """400: there is no Idempotency-Key, or what was sent is not one."""


class KeyReused(IdempotencyError):
    """422: the key was used with another request before."""

    status = 422


class InFlight(IdempotencyError):
    """409: another request with this key is being processed."""

    status = 409
    retry_after_s = 1
