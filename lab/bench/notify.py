"""What waking the relay costs those who commit: four of them, at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack

import django

from lab.bench.figures import Figure, ratio
from lab.bench.world import World
from lab.stack.stack import ROOT

COMMITTERS = 4
#: In slices, each side in turn, all committers at once: two runs, one after the other, differ by more than
#: what is measured.
SLICE_S = 0.25
SECONDS = 9.0
#: Before that they commit for longer than a relay sleeps without a notification.
WARM_UP_S = 1.5
REPETITIONS = 5


def run(world: World) -> list[Figure]:
    both = [rates(world) for _ in range(REPETITIONS)]
    turns = {side: [rate[side] for rate in both] for side in both[0]}
    costs = {side: (1 - ratio(turns, side, "never waking")) * 100 for side in turns}
    name = f"wake-up cost for {COMMITTERS} concurrent committers"
    return [
        Figure(name, costs["waking"], "%", most=5, turns=turns),
        Figure("… if each commit sent its NOTIFY", costs["each time"], "%"),
    ]


def rates(world: World) -> dict[str, float]:
    """Commits a second of all committers together, each with one message, beside a real relay."""
    world.empty()
    with world.relay(env={"OUTBOX_DEPTH_LIMIT": "1000000"}), ExitStack() as ending:
        committers = [
            subprocess.Popen(
                [sys.executable, "-m", __name__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(COMMITTERS)
        ]  # fmt: skip
        for committer in committers:
            ending.enter_context(committer)
        for committer in committers:
            assert committer.stdout is not None
            committer.stdout.readline()  # It is connected.
        begin = time.time() + 0.1
        for committer in committers:
            assert committer.stdin is not None
            committer.stdin.write(f"{begin}\n")
            committer.stdin.flush()
        answers = [json.loads(committer.communicate()[0]) for committer in committers]
    return {
        side: sum(answer[side] for answer in answers) / (SECONDS / len(answers[0])) for side in answers[0]
    }


def commit() -> None:
    """One committer: says that it is ready, is told when to begin, and prints its commits of each side."""
    django.setup()
    from django.db import transaction

    from lab.bench.tasks import noop
    from outbox import rows

    wakes = {
        "waking": rows.WAKE,
        "never waking": "SELECT 1 WHERE false",
        "each time": f"SELECT pg_notify('{rows.CHANNEL}', '')",
    }
    commits = dict.fromkeys(wakes, 0)
    noop.delay(0)
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    time.sleep(max(0.0, begin - time.time()))
    while (now := time.time() - begin) < WARM_UP_S + SECONDS:
        side = list(wakes)[int(now / SLICE_S) % len(wakes)]
        rows.WAKE = wakes[side]
        with transaction.atomic():
            noop.delay(0)
        if now >= WARM_UP_S:
            commits[side] += 1
    print(json.dumps(commits))


if __name__ == "__main__":
    commit()
