"""What could not be done to several dead letters at once: each reason once, with its number and some of the ids."""

from __future__ import annotations

from dlq.masking import masked_text

#: Ids that are named of each reason.
SHOWN = 3


class Refusals:
    """Collects the refusals of one bulk action; `len` is how many there are."""

    def __init__(self) -> None:
        self._ids: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._ids.values()))

    def add(self, message_id: str, error: Exception | str) -> None:
        """Note that this dead letter was refused; `error` says why, with the id or without it."""
        reason = masked_text(str(error).replace(message_id, "", 1).lstrip(": "))
        self._ids.setdefault(reason, []).append(message_id)

    def lines(self) -> list[str]:
        """One line a reason, the most frequent first."""
        by_number = sorted(self._ids.items(), key=lambda entry: -len(entry[1]))
        return [f"{len(ids)}: {reason} ({_some(ids)})" for reason, ids in by_number]


def _some(ids: list[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return masked_text(", ".join(ids[:SHOWN])) + more
