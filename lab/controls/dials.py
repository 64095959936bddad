"""The fault dials of the sandbox that the control room shows, by service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from django.conf import settings

from lab.sandbox.faults import DIALS

#: Dial -> its column, and by how much the number that is shown is larger.
SHOWN = {
    "error_rate": ("errors, %", 100),
    "drop_reply_rate": ("replies lost, %", 100),
    "hang_rate": ("no answer, %", 100),
    "latency_ms": ("latency, ms", 1),
}


def shown() -> list[dict[str, Any]]:
    """The dials as they are set. Raises what `requests` raises when the sandbox does not answer."""
    answer = requests.get(f"{settings.STRIPE_API_BASE}/faults", timeout=2)
    answer.raise_for_status()
    faults = answer.json()
    return [
        {
            "service": service,
            "dials": [
                {
                    "name": f"{service}.{dial}",
                    "label": f"{service}: {label}",
                    "value": f"{faults[service][dial] * factor:g}",
                    "most": 100 if factor == 100 else 60_000,
                }
                for dial, (label, factor) in SHOWN.items()
            ],
        }
        for service in DIALS
    ]


def asked(form: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """What the form of the page asks for, as the sandbox takes it. Raises ValueError for what is no number."""
    return {
        service: {
            dial: float(form.get(f"{service}.{dial}") or 0) / factor for dial, (_, factor) in SHOWN.items()
        }
        for service in DIALS
    }
