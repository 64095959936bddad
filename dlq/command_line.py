"""The verbs and options of `manage.py dlq`, and which values they take."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable

from dlq import call
from dlq.message import text
from dlq.models import Cause, State
from dlq.operations import command

#: A hundred years: what lies further back is a typing error, and soon out of the range of dates.
MAX_DAYS = 36_500


def declare(parser: ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="one line a dead letter, the last failure first")
    _add_filters(listing, state=State.OPEN)
    listing.add_argument("--limit", type=_whole(1, 1_000_000), default=50, help="most lines (default: 50)")
    show = verbs.add_parser(
        "show",
        help="everything about one dead letter, secrets masked: JSON, and on a terminal the traceback as text below it",
    )
    show.add_argument("message_id", type=text)
    again = verbs.add_parser("replay", help="send dead letters again")
    _add_selection(again)
    again.add_argument(
        "--retries", type=_whole(0, 100), help="most retries of the new run (default: as its task says)"
    )
    again.add_argument("--force", action="store_true", help="also messages that could not be read")
    again.add_argument(
        "--canary",
        type=_whole(0, 1_000_000),
        default=0,
        help="send this many first, and the others only after their outcome (default: 0, no canary)",
    )
    again.add_argument(
        "--stop-above",
        type=_whole(0, 100),
        default=100,
        metavar="PERCENT",
        help="stop when more than this share of those sent failed again (default: 100, never)",
    )
    edit = verbs.add_parser("edit", help="send a copy of a dead letter with other arguments")
    edit.add_argument("message_id", type=text)
    edit.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="an argument and its value: order_id=5, sku='\"WIDGET\"'; may be given again",
    )
    edit.add_argument("--unset", action="append", default=[], metavar="NAME", help="an argument to leave out")
    edit.add_argument("--reason", default="", help="what was wrong")
    edit.add_argument(
        "--retries", type=_whole(0, 100), help="most retries of the copy (default: as its task says)"
    )
    close = verbs.add_parser("discard", help="close dead letters for good; their messages will never run")
    _add_selection(close)
    close.add_argument("--reason", required=True)
    for sending in (again, close):
        sending.add_argument(
            "--rate",
            type=_whole(0, 1_000_000),
            default=0,
            help="most dead letters a second (default: 0, no limit)",
        )
        sending.add_argument(
            "--background", action="store_true", help="let the workers do it, and do not wait"
        )
    running = verbs.add_parser(
        "operations", help="show and control replays and discards of many dead letters"
    )
    running.add_argument("action", choices=command.ACTIONS)
    running.add_argument("operation", nargs="?", type=_whole(1, 2**63 - 1))
    purge = verbs.add_parser(
        "purge",
        help="discard every open dead letter (--reason), or delete old records (--closed-before-days)",
    )
    what = purge.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--reason",
        help="discard every open dead letter for this reason, as DeadLetterQueue.purge() does; they stay on record",
    )
    what.add_argument(
        "--closed-before-days",
        type=_days,
        metavar="DAYS",
        help="delete the record of dead letters that were closed longer ago; open ones are not touched",
    )
    export = verbs.add_parser("export", help="JSON lines on standard output, secrets masked")
    _add_filters(export, state=None)


def _whole(smallest: int, largest: int) -> Callable[[str], int]:
    """The type of a whole number within these bounds."""

    def parse(given: str) -> int:
        try:
            number = int(given)
        except ValueError:
            number = smallest - 1
        if not smallest <= number <= largest:
            raise ArgumentTypeError(f"{given!r} is not a whole number from {smallest} to {largest}")
        return number

    return parse


def _days(given: str) -> float:
    """The type of an age in days that a date can lie in the past."""
    try:
        days = float(given)
    except ValueError:
        days = math.nan
    if not 0 <= days <= MAX_DAYS:
        raise ArgumentTypeError(f"{given!r} is not a number of days from 0 to {MAX_DAYS}")
    return days


def _filter(given: str) -> str:
    """The type of a filter: an empty one, as of a variable that is not set, would let everything pass."""
    if not given:
        raise ArgumentTypeError("its value is empty")
    return text(given)


def _subject(given: str) -> str:
    """The type of what a dead letter is found by: an argument with its value, or the value alone."""
    name, _, value = _filter(given).partition("=")
    if not value and (given != name or name in call.argument_names()):
        raise ArgumentTypeError(f"the value of {name} is missing: --about {name}=...")
    return text(given)


def _add_filters(parser: ArgumentParser, *, state: str | None) -> None:
    parser.add_argument("--state", choices=State.values, default=state)
    _add_narrowing(parser)


def _add_narrowing(parser: ArgumentParser) -> None:
    parser.add_argument("--task", type=_filter)
    parser.add_argument("--queue", type=_filter)
    parser.add_argument("--exception", type=_filter, help="type, with its module")
    parser.add_argument("--cause", choices=Cause.values)
    parser.add_argument(
        "--about", type=_subject, help="an argument that it was called with: order_id=999, or 999"
    )


def _add_selection(parser: ArgumentParser) -> None:
    parser.add_argument("message_id", nargs="*", type=text)
    parser.add_argument("--all", action="store_true", help="every open dead letter that the filters leave")
    _add_narrowing(parser)
