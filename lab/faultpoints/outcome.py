"""What one explored point has shown. Needs no Django, so that the process that prints it does not either."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.faultpoints.boundaries import Point


@dataclass(frozen=True)
class Outcome:
    """One explored point; `violations` is empty when everything held."""

    scenario: str
    strike: str
    point: Point | None
    second: Point | None = None
    crossing: str = ""
    violations: list[str] = field(default_factory=list)
    #: Whether the strikes happened; a second one may be past the end of a recovery that is shorter this time.
    struck: bool = True

    def replay(self) -> str:
        """The command that runs into this point again."""
        strike = "" if self.strike == "kill" else f" --strike {self.strike}"
        second = f" --second {self.second}" if self.second else ""
        return f"python -m lab.faultpoints --scenario {self.scenario}{strike} --point {self.point}{second}"
