"""Crash points: every I/O boundary of every task, endpoint, relay pass, rescue and replay, with a crash at each.

    python -m lab.faultpoints                                   # all of it
    python -m lab.faultpoints --scenario process_order --list   # the trace, with its numbers
    python -m lab.faultpoints --scenario process_order --point 12:after [--second 7:before]

A scenario is run once to record its boundaries. Then, for each boundary and side, the same start is made again, a
forked child runs into it and is killed there (SIGKILL) or has its connection cut, time passes, everything is
redelivered, each copy twice, until no message is open, and the ledgers of both sides are compared (lab.invariants,
and lab.faultpoints.invariants for what needs no outside world). Idea: exhaustive crash exploration as in ALICE (Pillai et
al., OSDI 2014) and in FoundationDB's simulation, with real processes and a real database.
"""
