"""What a run leaves: two tables on the terminal, a JSON file, and a picture of the throughput with the faults in it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.chaos.faults import KINDS, SKIPPED
from lab.chaos.plot import timeline
from lab.chaos.run import Run
from lab.invariants import Finding

#: A run of this length must have hit work in flight so often with every kind.
FULL_MINUTES, FULL_HITS = 10.0, 5
#: In a shorter one a kind that comes so often must have hit once; one that comes less often may find nothing there.
OFTEN = 3


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns that line up; the first row is the head."""
    widths = [max(len(text) for text in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(lines)


def faults(run: Run) -> list[list[str]]:
    """Kind, role, how often it struck, how often it hit work in flight, how much."""
    struck, hits, work = Counter[str](), Counter[str](), Counter[str]()
    for each in run.director.struck:
        struck[each.kind.name] += 1
        hits[each.kind.name] += each.in_flight > 0
        work[each.kind.name] += each.in_flight
    rows = [["fault", "role", "struck", "hit work in flight", "pieces of work"]]
    for kind in sorted(KINDS.values(), key=lambda kind: (kind.role, kind.name)):
        if run.options.broker in kind.brokers:
            figures = (struck[kind.name], hits[kind.name], work[kind.name])
            rows.append([kind.name, kind.role, *(f"{figure:,}" for figure in figures)])
    return rows


def verdict(run: Run) -> list[str]:
    """Reasons for which the run fails, in sentences; empty when it passed."""
    reasons = [f"BROKEN: {each.promise}: {each.difference}" for each in run.findings if not each.holds]
    reasons += [f"DAMAGE: {what}: {count:,}" for what, count in run.damage.items() if count]
    if not run.quiet:
        reasons.append("the system did not come to rest")
    reasons += [f"a client was surprised: {text}" for text in run.clients.surprises[:5]]
    if not run.watch.completed:
        reasons.append("no order was completed: the run proves nothing")
    if not any(each.in_flight for each in run.director.struck):
        reasons.append("no fault hit work in flight: the run proves nothing")
    # The naive shop lacks the roles that some kinds strike, and is judged by its damage alone.
    return reasons if run.options.naive else reasons + unproven(run)


def unproven(run: Run) -> list[str]:
    """Kinds of fault of which the run proves too little, in sentences."""
    planned = Counter(each.kind.name for each in run.director.plan)
    hits = Counter(each.kind.name for each in run.director.struck if each.in_flight)
    full = run.options.minutes >= FULL_MINUTES
    return [
        f"{name} hit work in flight {hits[name]} times of {times}: that proves too little"
        for name, times in sorted(planned.items())
        if hits[name] < (FULL_HITS if full else int(times >= OFTEN))
    ]


def figures(run: Run, reasons: Sequence[str]) -> dict[str, Any]:
    """The run as data."""
    struck = run.director.struck
    return {
        "seed": run.options.seed,
        "minutes": run.options.minutes,
        "broker": run.options.broker,
        "naive": run.options.naive,
        "begun_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.begun_at)),
        "seconds": round(run.seconds, 1),
        "orders": {"placed": run.clients.placed, **run.clients.counts(), "completed": run.watch.completed},
        "faults": {
            "struck": len(struck),
            "hit_work_in_flight": sum(each.in_flight > 0 for each in struck),
            "kill_9": sum(each.kind.kills for each in struck),
            "kinds": len({each.kind.name for each in struck}),
            "roles": sorted({each.kind.role for each in struck}),
            "found_nothing_to_hit": Counter(planned.kind.name for planned in run.director.missed),
            "skipped": SKIPPED,
        },
        "invariants": [vars(finding) for finding in run.findings],
        "violations": sum(not finding.holds for finding in run.findings),
        "damage": run.damage,
        "passed": not reasons,
        "reasons": list(reasons),
        "timeline": [
            {
                "at_s": round(each.at_s, 2),
                "kind": each.kind.name,
                "role": each.kind.role,
                "in_flight": each.in_flight,
                "lasts_s": round(each.hit.lasts_s, 2),
                "note": each.hit.note,
            }
            for each in struck
        ],
    }


def write(run: Run, content: dict[str, Any]) -> tuple[Path, Path]:
    """The JSON report and the picture, under var/chaos."""
    name = f"{run.subject.name}-{run.options.broker}-seed-{run.options.seed}"
    home = run.options.home
    report, picture = home / f"{name}.json", home / f"{name}.svg"
    report.write_text(json.dumps(content, indent=1) + "\n")
    marks = [
        (each.at_s, each.hit.lasts_s, each.kind.role, each.kind.name, each.kind.kills)
        for each in run.director.struck
    ]
    backlog = [(sample.at_s, sample.open_messages) for sample in run.watch.samples]
    picture.write_text(timeline(run.completed_at_s, backlog, marks, seconds=run.seconds, title=name))
    return report, picture


def invariants(findings: Sequence[Finding]) -> list[list[str]]:
    rows = [["invariant", "database", "outside world", ""]]
    return rows + [
        [each.promise, each.database, each.outside, "holds" if each.holds else "BROKEN"] for each in findings
    ]


def side_by_side(run: Run) -> list[list[str]]:
    """The damage beside that of the other application under the same schedule, if its report is there."""
    ours, other = run.subject.name, "holdfast" if run.options.naive else "naive"
    path = run.options.home / f"{other}-{run.options.broker}-seed-{run.options.seed}.json"
    theirs: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    comparable = (
        theirs.get("minutes") == run.options.minutes and theirs["orders"]["placed"] == run.clients.placed
    )
    head = ["damage", ours, *([other] if comparable else [])]
    return [head] + [
        [what, f"{count:,}", *([f"{theirs['damage'].get(what, 0):,}"] if comparable else [])]
        for what, count in run.damage.items()
    ]
