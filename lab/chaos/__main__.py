"""`make chaos`: MINUTES= of faults under load, then the ledgers are checked. Exit status 0 only if everything holds."""

from __future__ import annotations

import sys

from lab.chaos import report
from lab.chaos.options import options
from lab.chaos.run import abort_unless_linux, forget, run
from lab.signals import Stopped, raise_on_stop
from lab.stack import StackError


def main() -> int:
    """Run it. Returns the exit status."""
    raise_on_stop()
    try:
        abort_unless_linux()
        asked = options()
        finished = run(asked, lambda text: print(text, flush=True))
    except Stopped as stopped:
        print("\nstopped", file=sys.stderr)
        return stopped.exit_code
    except StackError as problem:
        print(f"chaos: {problem}", file=sys.stderr)
        return 1
    reasons = report.verdict(finished)
    content = report.figures(finished, reasons)
    print(f"\n{report.table(report.faults(finished))}\n")
    if finished.findings:
        print(f"{report.table(report.invariants(finished.findings))}\n")
    print(f"{report.table(report.side_by_side(finished))}\n")
    counts, orders = content["faults"], content["orders"]
    print(
        f"{orders['placed']:,} orders placed ({orders['ok']:,} accepted, {orders['unknown']:,} unknown),"
        f" {orders['completed']:,} completed in {content['seconds']:,.0f} s\n"
        f"{counts['struck']} faults of {counts['kinds']} kinds over {len(counts['roles'])} roles,"
        f" {counts['kill_9']} of them kill -9; {counts['hit_work_in_flight']} hit work in flight"
    )
    for name, why in counts["skipped"].items():
        print(f"skipped: {name}: {why}")
    for path in report.write(finished, content):
        print(f"written: {path}")
    if not reasons:
        forget(asked)
    for reason in reasons:
        print(f"\n{reason}")
    print(
        f"\nseed {asked.seed}: {'FAILED' if reasons else f'all {len(finished.findings)} invariants hold, no damage'}"
    )
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
