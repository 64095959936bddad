"""Dead letters of one problem are one group, whatever differs from case to case."""

from __future__ import annotations

import traceback

from dlq.error_info import fingerprint, normalised, place


def _fails_here(message: str) -> str:
    try:
        int(message)
    except ValueError as exc:
        return "".join(traceback.format_exception(exc))
    raise AssertionError("unreachable")


def test_the_place_is_the_innermost_own_function() -> None:
    assert place(_fails_here("x")) == "dlq.test_error_info._fails_here"


def test_frames_of_packages_and_of_the_standard_library_are_not_own() -> None:
    trace = (
        'Traceback (most recent call last):\n  File "/srv/app/payments/gateway.py", line 10, in charge\n'
        '  File "/srv/.venv/lib/python3.11/site-packages/stripe/_api.py", line 5, in request\n'
        '  File "/usr/lib/python3.11/socket.py", line 3, in create_connection\n'
        '  File "<frozen importlib._bootstrap>", line 1, in _find\nOSError: down\n'
    )
    assert place(trace) == "payments.gateway.charge"


def test_a_moved_line_does_not_split_a_group() -> None:
    trace = _fails_here("x")
    moved = trace.replace(", line ", ", line 9")
    assert moved != trace
    assert fingerprint(exception="E", error="a", where=place(trace), task="t") == fingerprint(
        exception="E", error="b", where=place(moved), task="t"
    )


def test_without_an_own_frame_the_message_groups_with_its_ids_taken_out() -> None:
    one = "order 42 of 'alice' not found: 0e6d4e6e-6d8f-4c1e-9c9a-0d3a8a4f1c11 at 0x7f00"
    other = "order 7 of 'bob' not found: 5e6d4e6e-6d8f-4c1e-9c9a-0d3a8a4f1c12 at 0x7fff"
    assert normalised(one) == normalised(other) == "order <n> of <text> not found: <uuid> at <address>"


def test_tasks_and_exceptions_are_never_mixed() -> None:
    base = {"exception": "E", "error": "m", "where": "p", "task": "t"}
    prints = {fingerprint(**{**base, name: "other"}) for name in ("exception", "where", "task")}
    assert len(prints | {fingerprint(**base)}) == 4
