"""The timeline as an SVG, drawn with a few lines so that the lab needs no plotting library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

WIDTH, LEFT, RIGHT = 1200, 60, 150
CHART, LANE, TOP = 220, 16, 40
Mark = tuple[float, float, str, str, bool]


def timeline(
    completed_at_s: Sequence[float],
    backlog: Sequence[tuple[float, int]],
    marks: Sequence[Mark],
    *,
    seconds: float,
    title: str,
) -> str:
    """Orders completed a second, open messages, and one lane of marks a role: (at, lasts, role, name, is a kill)."""
    seconds = max(1.0, seconds)
    roles = sorted({mark[2] for mark in marks})
    height = TOP + CHART + 30 + LANE * len(roles) + 30

    def x(at_s: float) -> float:
        return LEFT + min(max(at_s, 0.0), seconds) / seconds * (WIDTH - LEFT - RIGHT)

    per_second = Counter(int(at_s) for at_s in completed_at_s)
    highest = max(per_second.values(), default=1)
    most_open = max((count for _, count in backlog), default=1) or 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/><text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>',
        f'<text x="{LEFT + 420}" y="20" fill="#2a6f97">orders completed a second (top: {highest})</text>',
        f'<text x="{LEFT + 680}" y="20" fill="#e09f3e">open messages (top: {most_open:,})</text>',
        f'<text x="{LEFT + 880}" y="20" fill="#9e2a2b">kill -9</text>',
        f'<text x="{LEFT + 930}" y="20" fill="#777">other faults</text>',
    ]
    for second in range(int(seconds) + 1):
        count = per_second[second]
        bar = CHART * count / highest
        if bar:
            parts.append(
                f'<rect x="{x(second):.1f}" y="{TOP + CHART - bar:.1f}" width="{max(1.0, x(1) - x(0)):.1f}"'
                f' height="{bar:.1f}" fill="#2a6f97"/>'
            )
    line = " ".join(f"{x(at_s):.1f},{TOP + CHART - CHART * count / most_open:.1f}" for at_s, count in backlog)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#e09f3e" stroke-width="1.5"/>')
    for number, role in enumerate(roles):
        y = TOP + CHART + 24 + LANE * number
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y + 10}">{escape(role)}</text>')
        for at_s, lasts_s, of, name, kills in marks:
            if of == role:
                width = max(2.5, x(lasts_s) - x(0))
                colour = "#9e2a2b" if kills else "#777"
                parts.append(
                    f'<rect x="{x(at_s):.1f}" y="{y}" width="{width:.1f}" height="{LANE - 4}" fill="{colour}"'
                    f' fill-opacity="0.8"><title>{at_s:.1f} s: {escape(name)}</title></rect>'
                )
    step = next(step for step in (5, 10, 30, 60, 300, 3600) if seconds / step <= 20 or step == 3600)
    for second in range(0, int(seconds) + 1, step):
        parts.append(
            f'<text x="{x(second):.1f}" y="{TOP + CHART + 14}" text-anchor="middle">{second} s</text>'
        )
    return "\n".join([*parts, "</svg>\n"])
