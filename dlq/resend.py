"""The ways in which the message of a dead letter is sent again: by its journal, as it was received, or by a handler."""

from __future__ import annotations

import json
import traceback
from datetime import timedelta
from typing import Any, Protocol

from celery import current_app
from django.db import transaction
from kombu import Exchange
from kombu.serialization import dumps, loads

from dlq import call, conf, journal, record
from dlq.error_info import shortened
from dlq.masking import masked_text
from dlq.message import BROKER_HEADERS, REPLAY_HEADER, RawMessage
from dlq.models import Cause, DeadLetter, Happened, State

#: A message without a journal that was sent again and has had no outcome since may have been lost with its broker;
#: after this an operator may send it again, and `dlq.unanswered` opens its dead letter. A journalled one cannot be
#: lost, so that it has no such end.
SILENT_AFTER = timedelta(hours=1)
#: How long RabbitMQ may take to confirm that it has stored the message.
CONFIRM_WITHIN_S = 10
#: Retries of a handler that runs here, where the operator names no number.
HANDLER_RETRIES = 3
#: Causes for which sending the same bytes again can only end the same way.
UNREADABLE = (Cause.UNDECODABLE, Cause.MALFORMED)


class NotReplayable(Exception):
    """The message was not sent again; the text says why."""


class Way(Protocol):
    """One way of sending again. Both steps return the id that the message runs under, and raise NotReplayable."""

    def claim(self, dead_letter: DeadLetter, retries: int | None) -> str | None:
        """In the transaction that claims the dead letter; None when `send` is still to be called."""

    def send(self, dead_letter: DeadLetter, retries: int | None) -> str:
        """After the claim is committed: a crash here leaves a replay that has no outcome."""


def way_of(dead_letter: DeadLetter, *, force: bool = False) -> Way:
    """How this message is sent again. `force`: also one that could not be read. Raises NotReplayable."""
    if dead_letter.generation is not None:
        return Journalled()
    if (raw := dead_letter.message) is not None and raw.missing:
        raise NotReplayable(
            f"{dead_letter.message_id}: its body is not here, it was too large to be kept ({raw.missing});"
            " have its producer send it again, smaller, and discard this dead letter"
        )
    if dead_letter.cause in UNREADABLE and not force:
        raise NotReplayable(
            f"{dead_letter.message_id} is {dead_letter.cause}: sent again as it is, it can only fail again"
        )
    if raw is not None:
        if call.registered(dead_letter.task) is None:
            raise NotReplayable(
                f"no task {masked_text(dead_letter.task)!r} is registered here: deploy it, or discard the dead letter"
            )
        if dead_letter.queue not in current_app.amqp.queues:
            # The producer chose the name: on Redis it would be a list without a consumer.
            raise NotReplayable(
                f"{dead_letter.message_id}: the queue {masked_text(dead_letter.queue)!r} is not a queue of this application"
            )
        return Raw(raw)
    if dead_letter.cause != Cause.ADDED:
        raise NotReplayable(f"{dead_letter.message_id}: its message could not be kept")
    if conf.handler(dead_letter.queue) is None:
        raise NotReplayable(f"DLQ_HANDLERS names no handler for the queue {dead_letter.queue!r}")
    return Handler()


class Journalled:
    """The journal runs its own dead message again, as a new generation of it."""

    def arm(self, hooks: Any, dead_letter: DeadLetter, retries: int | None) -> str | None:
        """Have the journal run it. Returns its id, None where it has no such dead message. Raises its `Refused`."""
        found: str | None = hooks.republish(dead_letter.message_id, retries=retries)
        return found

    def claim(self, dead_letter: DeadLetter, retries: int | None) -> str | None:
        hooks = journal.hooks()
        if hooks is None:
            raise NotReplayable(f"{dead_letter.message_id} has a journal, and DLQ_JOURNAL does not name it")
        try:
            new_id = self.arm(hooks, dead_letter, retries)
        except hooks.Refused as why:
            raise NotReplayable(f"{dead_letter.message_id}: {why}") from None
        if new_id is None:
            raise NotReplayable(
                f"{dead_letter.message_id}: its journal no longer has a dead message with this id"
            )
        return str(new_id)

    def send(self, dead_letter: DeadLetter, retries: int | None) -> str:
        raise AssertionError("the journal sends what it has armed")


class Raw:
    """The message as it was received: a journal takes it as one of its own, or it is published under its id."""

    def __init__(self, raw: RawMessage) -> None:
        self.raw = raw

    def claim(self, dead_letter: DeadLetter, retries: int | None) -> str | None:
        """Hand the message to a journal, in the caller's transaction; None where there is none, or it does not take it."""
        hooks = journal.hooks()
        if hooks is None:
            return None
        try:
            body = loads(
                self.raw.body, self.raw.content_type, self.raw.content_encoding, accept={"application/json"}
            )
            if isinstance(body, dict):
                args, kwargs, embed = body.get("args") or [], body.get("kwargs") or {}, body
            else:
                args, kwargs, embed = body
        except Exception as error:
            raise NotReplayable(
                f"{dead_letter.message_id}: its body cannot be read ({shortened(error)})"
            ) from None
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise NotReplayable(f"{dead_letter.message_id}: its arguments are not a list and a mapping")
        _refuse(dead_letter, embed)
        return adopt(hooks, dead_letter, retries, args=args, kwargs=kwargs)

    def send(self, dead_letter: DeadLetter, retries: int | None) -> str:
        """Publish the same message under the same id."""
        headers = renewed(self.raw.headers, dead_letter, retries)
        publish(dead_letter, dead_letter.message_id, *_body(dead_letter, self.raw, retries), headers=headers)
        return dead_letter.message_id


class Handler:
    """The callable that `DLQ_HANDLERS` names for the queue is run at once, in this process."""

    def claim(self, dead_letter: DeadLetter, retries: int | None) -> str | None:
        return None

    def send(self, dead_letter: DeadLetter, retries: int | None) -> str:
        attempts, error = run_handler(dead_letter.queue, dead_letter.args, dead_letter.kwargs, retries)
        if error is not None:
            record.reopen(
                dead_letter.message_id,
                attempts=attempts,
                exception=error,
                error=str(error),
                traceback="".join(traceback.format_exception(error)),
            )
            raise NotReplayable(
                f"{dead_letter.message_id} failed again: {type(error).__name__}: {error}"
            ) from error
        record.on_resolved(dead_letter.message_id)
        return dead_letter.message_id


def adopt(hooks: Any, dead_letter: DeadLetter, retries: int | None, **call: Any) -> str | None:
    """Make the message, with this `call`, one of the journal's. Returns its id, None where the journal does not take it."""
    task, queue = dead_letter.task, dead_letter.queue
    try:
        new_id = hooks.adopt(dead_letter.message_id, task=task, queue=queue, retries=retries, **call)
    except hooks.Refused as why:
        raise NotReplayable(f"{dead_letter.message_id}: {why}") from None
    return None if new_id is None else str(new_id)


def refuse_follow_ups(dead_letter: DeadLetter) -> None:
    """Raise `NotReplayable` for a message that names what is to follow it: a copy would not."""
    raw = dead_letter.message
    try:
        body = json.loads(raw.body) if raw else {}
        embed = body if isinstance(body, dict) else body[2]
    except (ValueError, LookupError, TypeError, RecursionError):
        return  # It could not be read, and names nothing.
    _refuse(dead_letter, embed)


def _refuse(dead_letter: DeadLetter, embed: Any) -> None:
    named = embed if isinstance(embed, dict) else {}
    if any(named.get(name) for name in ("callbacks", "errbacks", "chain", "chord")):
        raise NotReplayable(
            f"{dead_letter.message_id}: it carries follow-up tasks (callbacks or a canvas), which would never run here"
        )


def run_handler(queue: str, args: Any, kwargs: Any, retries: int | None) -> tuple[int, Exception | None]:
    """Call the handler of the queue until it succeeds or has no retries left; how often, and the last error."""
    retries = HANDLER_RETRIES if retries is None else retries
    handler = conf.handler(queue)
    assert handler is not None
    for attempt in range(retries + 1):
        try:
            handler(*(args or []), **(kwargs or {}))
        except Exception as error:
            if attempt == retries:
                return attempt + 1, error
        else:
            return attempt + 1, None
    raise AssertionError("no retries are one run")


def publish(
    dead_letter: DeadLetter,
    message_id: str,
    body: bytes | str,
    content_type: Any,
    content_encoding: Any,
    *,
    headers: dict[str, Any],
) -> None:
    """Publish a message that no journal has to the queue of the dead letter. Raises `NotReplayable`."""
    with current_app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=3, interval_start=0, interval_step=1)
            producer = connection.Producer(connection.default_channel)
        except Exception as exc:
            raise _unsent(dead_letter, exc) from exc
        try:
            producer.publish(
                body,
                exchange=Exchange(""),
                routing_key=dead_letter.queue,
                content_type=content_type,
                content_encoding=content_encoding,
                headers=headers,
                # Once: when the answer is lost, the broker may have the message, and no row would tell two copies.
                retry=False,
                delivery_mode=2,
                mandatory=True,
                confirm_timeout=CONFIRM_WITHIN_S,
                correlation_id=message_id,
            )
        except Exception as exc:
            if not isinstance(exc, connection.connection_errors):
                raise _unsent(dead_letter, exc) from exc
            # Without the handshake of a close, which would wait for the same broker.
            connection.collect()
            raise NotReplayable(
                f"{dead_letter.message_id} may have been published, the broker did not confirm it ({exc}): it can be sent"
                f" again if it has no outcome within {SILENT_AFTER}"
            ) from exc


def _unsent(dead_letter: DeadLetter, exc: Exception) -> NotReplayable:
    """The broker does not have it, and nothing ran: the dead letter is open again, and as it was."""
    why = shortened(f"could not be published, the broker did not take it: {type(exc).__name__}: {exc}")
    with transaction.atomic():
        if DeadLetter.objects.filter(pk=dead_letter.pk, state=State.REPLAYING).update(state=State.OPEN):
            dead_letter.happened(Happened.RETURNED, note=why)
    return NotReplayable(f"{dead_letter.message_id} {why}. Its dead letter is open as before")


def _body(dead_letter: DeadLetter, raw: RawMessage, retries: int | None) -> tuple[bytes | str, Any, Any]:
    """The body for another run, its content type and encoding: as it was, but for fields of Celery's protocol 1.

    That has the fields in the body, where its expiry counts and where the worker looks for the dead letter's id.
    """
    as_it_was = raw.body, raw.content_type, raw.content_encoding
    try:
        fields = loads(*as_it_was, accept={"application/json"})
    except Exception:
        return as_it_was
    if not isinstance(fields, dict):
        return as_it_was
    content_type, content_encoding, body = dumps(renewed(fields, dead_letter, retries), serializer="json")
    return body, content_type, content_encoding


def renewed(fields: dict[str, Any], dead_letter: DeadLetter, retries: int | None) -> dict[str, Any]:
    """The fields for another run: not expired, not compressed (the kept body is not), with tries left."""
    dropped = {"expires", "eta", "compression", *BROKER_HEADERS}
    if hooks := journal.hooks():
        # A journal that knows the message would have ended it: one that has forgotten it would skip the new run.
        dropped.add(hooks.HEADER)
    kept = {key: value for key, value in fields.items() if key not in dropped}
    return {**kept, "retries": spent(dead_letter, retries), REPLAY_HEADER: dead_letter.message_id}


def spent(dead_letter: DeadLetter, retries: int | None) -> int:
    """How many retries of its task count as made, for a run that may have so many: Celery counts them, and not what is left."""
    task = call.registered(dead_letter.task)
    limit = task.max_retries if task else None
    return 0 if limit is None or retries is None else max(0, limit - retries)
