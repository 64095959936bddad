"""`manage.py dlq list|show|replay|edit|discard|operations|purge|export`: the desk for a terminal."""

from __future__ import annotations

import getpass
import json
import math
import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet
from django.template.defaultfilters import pluralize

from dlq import arguments, call, replay, retention, stats
from dlq.masking import each_line, masked_text, one_line
from dlq.message import text
from dlq.models import LARGE, Cause, DeadLetter, State
from dlq.operations import audit, command, selection
from dlq.operations.models import Kind
from dlq.operations.progress import numbers, refusals
from dlq.queue import DeadLetterQueue, NoSuchDeadLetter

#: A hundred years: what lies further back is a typing error, and soon out of the range of dates.
MAX_DAYS = 36_500


class Command(BaseCommand):
    help = "Show, replay, edit, discard and export dead letters."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list", help="one line a dead letter, the last failure first")
        _add_filters(listing, state=State.OPEN)
        listing.add_argument(
            "--limit", type=_whole(1, 1_000_000), default=50, help="most lines (default: 50)"
        )
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
        edit.add_argument(
            "--unset", action="append", default=[], metavar="NAME", help="an argument to leave out"
        )
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

    def handle(self, *args: Any, **options: Any) -> None:
        getattr(self, f"_{options['verb']}")(options)

    def _say(self, line: str) -> None:
        """Tell the user what is no part of the output: on standard error, but not in the style of an error."""
        self.stdout.flush()
        self.stderr.write(one_line(line), str)

    def _list(self, options: dict[str, Any]) -> None:
        dead_letters = _filtered(options)
        for dead_letter in dead_letters.defer(*LARGE)[: options["limit"]]:
            line = (
                f"{dead_letter.failed_at:%Y-%m-%d %H:%M:%S}  {dead_letter.state:<9}  {dead_letter.queue or '-':<9}"
                f"  {dead_letter.message_id}  {dead_letter.call or '-'}  {masked_text(dead_letter.summary)[:120]}"
            )
            self.stdout.write(one_line(line))
        count = dead_letters.count()
        self._say(f"{count} dead letter{pluralize(count)}")

    def _show(self, options: dict[str, Any]) -> None:
        dead_letter = DeadLetter.objects.filter(message_id=options["message_id"]).first()
        if dead_letter is None:
            raise CommandError(f"there is no dead letter {options['message_id']}")
        shown = stats.detail(dead_letter)
        # In JSON it is one line, which only a program can read.
        traceback = shown.pop("traceback") if self.stdout.isatty() else ""
        self.stdout.write(each_line(json.dumps(shown, indent=2, ensure_ascii=False)))
        if traceback:
            self.stdout.write(each_line(f"\n{traceback}"))

    def _replay(self, options: dict[str, Any]) -> None:
        wanted = {name: options[name] for name in ("retries", "force", "canary", "stop_above", "rate")}
        self._operate(Kind.REPLAY, options, "sent again", **wanted)

    def _edit(self, options: dict[str, Any]) -> None:
        try:
            given = [each.partition("=") for each in options["set"]]
            changes = {name: arguments.parsed(name, value) for name, _, value in given}
            sent_as = DeadLetterQueue.edit(
                options["message_id"],
                changes,
                without=options["unset"],
                reason=options["reason"],
                actor=_user(),
                retries=options["retries"],
            )
        except (NoSuchDeadLetter, replay.NotReplayable) as why:
            raise CommandError(one_line(masked_text(str(why)))) from why
        self.stdout.write(f"sent an edited copy of {options['message_id']}: {sent_as}")

    def _discard(self, options: dict[str, Any]) -> None:
        wanted = {name: options[name] for name in ("reason", "rate")}
        self._operate(Kind.DISCARD, options, "discarded", **wanted)

    def _operations(self, options: dict[str, Any]) -> None:
        for line in command.act(options["action"], options["operation"], actor=_user()):
            self.stdout.write(one_line(line))

    def _purge(self, options: dict[str, Any]) -> None:
        if options["reason"] is not None:
            try:
                discarded = DeadLetterQueue.purge(reason=options["reason"], actor=_user())
            except replay.NotDiscardable as exc:
                raise CommandError(str(exc)) from exc
            self.stdout.write(f"{discarded} dead letter{pluralize(discarded)} discarded")
            return
        deleted = retention.delete_closed(older_than=timedelta(days=options["closed_before_days"]))
        self.stdout.write(f"{deleted} dead letter{pluralize(deleted)} deleted")

    def _export(self, options: dict[str, Any]) -> None:
        dead_letters = _filtered(options)
        audit.record(Kind.EXPORT, "exported on a terminal", actor=_user(), selected=dead_letters.count())
        for dead_letter in stats.exported(dead_letters):
            self.stdout.write(one_line(json.dumps(dead_letter, ensure_ascii=False)))

    def _operate(self, kind: Kind, options: dict[str, Any], done: str, **wanted: Any) -> None:
        dead_letters = (
            DeadLetter.objects.filter(state=State.OPEN) if options["all"] else DeadLetter.objects.all()
        )
        if options["message_id"]:
            dead_letters = dead_letters.filter(message_id__in=options["message_id"])
            unknown = set(options["message_id"]) - set(dead_letters.values_list("message_id", flat=True))
            if unknown:
                raise CommandError(f"there is no dead letter {', '.join(sorted(unknown))}; nothing was done")
        elif not options["all"]:
            raise CommandError("name the dead letters by their message ids, or say --all (with filters)")
        actor = _user()
        chosen = selection.draft(
            kind, _narrowed(dead_letters, options), actor=actor, chosen_by="manage.py dlq"
        )
        for verdict, count in selection.preflight(chosen).items():
            if verdict.startswith(selection.PAUSED):
                self.stdout.write(f"{count} {verdict}")
        background = options["background"]
        operation = command.started(chosen, actor=actor, drive=background, **wanted)
        if background:
            count = operation.selected
            self.stdout.write(f"operation {operation.pk} of {count} dead letter{pluralize(count)} is started")
            return
        command.run(operation, actor=actor, wait=bool(operation.canary), say=self._say)
        refused = refusals(operation)
        for line in refused.lines():
            self.stderr.write(one_line(f"not {done}, {line}"))
        count = operation.selected - len(refused) - numbers(operation.pk).waiting
        self.stdout.write(f"{count} {done}, {len(refused)} refused")
        if rest := operation.selected - count:
            raise CommandError(f"{rest} of {operation.selected} were not {done}", returncode=1)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under any number, without an entry in passwd.
        return f"uid {os.getuid()}"


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


def _filtered(options: dict[str, Any]) -> QuerySet[DeadLetter]:
    dead_letters = DeadLetter.objects.all()
    if options["state"]:
        dead_letters = dead_letters.filter(state=options["state"])
    return _narrowed(dead_letters, options)


def _narrowed(dead_letters: QuerySet[DeadLetter], options: dict[str, Any]) -> QuerySet[DeadLetter]:
    wanted = {name: options[name] for name in ("task", "queue", "exception", "cause") if options[name]}
    if options["about"]:
        wanted["about__contains"] = [options["about"]]
    return dead_letters.filter(**wanted)
