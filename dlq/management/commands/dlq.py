"""`manage.py dlq list|show|replay|edit|discard|operations|purge|export`: the desk for a terminal."""

from __future__ import annotations

import getpass
import json
import os
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet
from django.template.defaultfilters import pluralize

from dlq import arguments, replay, retention, stats
from dlq.command_line import declare
from dlq.masking import each_line, masked_text, one_line
from dlq.models import LARGE, DeadLetter, State
from dlq.operations import audit, command, selection
from dlq.operations.models import Kind
from dlq.operations.progress import numbers, refusals
from dlq.queue import DeadLetterQueue, NoSuchDeadLetter


class Command(BaseCommand):
    help = "Show, replay, edit, discard and export dead letters."

    def add_arguments(self, parser: ArgumentParser) -> None:
        declare(parser)

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
                f"{dead_letter.failed_at:%Y-%m-%d %H:%M:%S}  {dead_letter.state:<9}  {masked_text(dead_letter.queue) or '-':<9}"
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
