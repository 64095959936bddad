"""Checks that the parameters of every gateway endpoint go through."""

from __future__ import annotations

from typing import Any

from lab.sandbox.stripe_errors import invalid

_NESTED = frozenset({"metadata", "payment_method_types", "automatic_payment_methods", "expand", "evidence"})


def known_params(params: dict[str, Any], allowed: frozenset[str]) -> None:
    """Raises `Refused` (400) for a parameter that is not `allowed`, or is nested and should not be."""
    for name, value in params.items():
        if name not in allowed:
            raise invalid(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
        if isinstance(value, dict) and name not in _NESTED:
            raise invalid(f"Invalid string: {name}", param=name)


def checked_metadata(params: dict[str, Any]) -> dict[str, str]:
    """The metadata within Stripe's limits: 50 keys of 40 characters, values of 500."""
    metadata = params.get("metadata") or {}
    if not isinstance(metadata, dict) or any(isinstance(value, dict) for value in metadata.values()):
        raise invalid("Invalid object: metadata must be a flat set of keys and values.", param="metadata")
    if len(metadata) > 50 or any(len(key) > 40 or len(value) > 500 for key, value in metadata.items()):
        raise invalid(
            "Metadata can have up to 50 keys, of up to 40 characters, with values of up to 500.",
            param="metadata",
        )
    return {key: value for key, value in metadata.items() if value}  # An empty value unsets its key.
