"""What waking the relay costs those who commit: four of them, at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack

import django

from lab.bench.figures import Figure, ratio, take_turns
from lab.bench.world import World
from lab.stack.stack import ROOT

COMMITTERS = 4
SECONDS = 3.0
REPETITIONS = 5


def run(world: World) -> list[Figure]:
    turns = take_turns(
        REPETITIONS,
        {"waking": lambda: rate(world, wake=True), "never waking": lambda: rate(world, wake=False)},
    )
    cost = (1 - ratio(turns, "waking", "never waking")) * 100
    return [Figure(f"wake-up cost for {COMMITTERS} concurrent committers", cost, "%", most=5, turns=turns)]


def rate(world: World, *, wake: bool) -> float:
    """Commits a second of all committers together, each with one message, beside a real relay."""
    world.empty()
    with world.relay(env={"OUTBOX_DEPTH_LIMIT": "1000000"}), ExitStack() as ending:
        committers = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, "wake" if wake else "never"],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(COMMITTERS)
        ]  # fmt: skip
        for committer in committers:
            ending.enter_context(committer)
        for committer in committers:
            assert committer.stdout is not None
            committer.stdout.readline()  # It is connected.
        for committer in committers:
            assert committer.stdin is not None
            committer.stdin.write("go\n")
            committer.stdin.flush()
        return sum(float(json.loads(committer.communicate()[0])) for committer in committers)


def commit(*, wake: bool) -> None:
    """One committer: says that it is ready, waits for a line, and prints its commits a second."""
    django.setup()
    from django.db import transaction

    from lab.bench.tasks import noop
    from outbox import intake

    if not wake:
        intake.WAKE = "SELECT 1 WHERE false"
    noop.delay(0)
    print("ready", flush=True)
    sys.stdin.readline()
    began, commits = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        with transaction.atomic():
            noop.delay(commits)
        commits += 1
    print(json.dumps(commits / (time.monotonic() - began)))


if __name__ == "__main__":
    commit(wake=sys.argv[1] == "wake")
