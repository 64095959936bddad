"""What the dead-letter desk shows of a dead letter: every column and field, with its secrets masked."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from dlq import conf
from dlq.call import masked_call
from dlq.masking import masked, masked_prefix, masked_text
from dlq.models import LARGE, DeadLetter, DeadLetterEvent

#: Bytes of a message on its page; a download has all.
MAX_SHOWN_BYTES = 4096


class Shown:
    """Mixin of a `ModelAdmin`: the methods that its `list_display` and fieldsets name."""

    class Media:
        css = {"all": ("dlq/desk.css",)}

    def get_object(self, *args: Any, **kwargs: Any) -> Any:
        return _without_secrets(super().get_object(*args, **kwargs))  # type: ignore[misc]

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        changelist: ChangeList = super().get_changelist_instance(request)  # type: ignore[misc]
        for row in changelist.result_list:
            _without_secrets(row)
        return changelist

    @admin.display(description="task", ordering="task")
    def what(self, dead_letter: DeadLetter) -> str:
        return dead_letter.call or f"({dead_letter.cause} message)"

    @admin.display(description="state", ordering="state")
    def badge(self, dead_letter: DeadLetter) -> SafeString:
        return format_html('<b class="dlq-{}">{}</b>', dead_letter.state, dead_letter.state)

    @admin.display(description="failed replays", ordering="failures")
    def failed_replays(self, dead_letter: DeadLetter) -> int:
        return dead_letter.failures - 1

    @admin.display(description="failed", ordering="failed_at")
    def failed_ago(self, dead_letter: DeadLetter) -> SafeString:
        return format_html(
            '<span title="{}">{} ago</span>',
            dead_letter.failed_at.isoformat(),
            timesince(dead_letter.failed_at),
        )

    @admin.display(description="error")
    def problem(self, dead_letter: DeadLetter) -> str:
        return masked_prefix(dead_letter.summary, 200)

    @admin.display(description="called with")
    def call(self, dead_letter: DeadLetter) -> SafeString:
        args, kwargs = masked_call(dead_letter.task, dead_letter.args, dead_letter.kwargs)
        return _preformatted(_pretty({"args": args, "kwargs": kwargs}))

    @admin.display(description="about")
    def subjects(self, dead_letter: DeadLetter) -> SafeString:
        """Links to all dead letters with the same argument."""
        url = reverse("admin:dlq_deadletter_changelist")
        about = [each for each in dead_letter.about if "=" in each] or dead_letter.about
        links = ((f"{url}?{urlencode({'q': each})}", each) for each in about)
        return format_html_join(" ", '<a href="{}">{}</a>', links)

    @admin.display(description="traceback")
    def shown_traceback(self, dead_letter: DeadLetter) -> SafeString:
        return _preformatted(
            masked_text(dead_letter.traceback) or "(none: it never ran, or its process was lost)"
        )

    @admin.display(description="headers")
    def shown_headers(self, dead_letter: DeadLetter) -> SafeString:
        return _preformatted(_pretty(masked(dead_letter.headers)))

    @admin.display(description="received message")
    def kept_message(self, dead_letter: DeadLetter) -> str:
        raw = dead_letter.message
        if raw is None:
            return "not kept: the journal has it"
        if raw.missing:
            return f"too large to be kept whole: {raw.missing}"
        return f"kept whole: {len(raw.body)} bytes, {raw.content_type}, {raw.content_encoding}"

    @admin.display(description="body")
    def shown_bytes(self, dead_letter: DeadLetter) -> SafeString:
        raw = dead_letter.message
        if raw is None:
            return SafeString("none")
        shown = raw.body[:MAX_SHOWN_BYTES].decode("ascii", "backslashreplace")
        shown = "".join(
            each if each.isprintable() or each in "\n\t" else f"\\x{ord(each):02x}" for each in shown
        )
        url = reverse("admin:dlq_deadletter_bytes", args=[dead_letter.pk])
        return format_html(
            '{}<p><a href="{}">Download {} bytes</a></p>', _preformatted(shown), url, len(raw.body)
        )

    @admin.display(description="timeline")
    def timeline(self, dead_letter: DeadLetter) -> SafeString:
        """Everything that happened to it, with the error of every attempt that made it a dead letter."""

        def cells(event: DeadLetterEvent) -> tuple[str, str, str, SafeString]:
            shown = format_html("{}", masked_prefix(event.note.strip(), 300))
            if event.traceback:
                shown = format_html(
                    "{}<details><summary>Traceback</summary>{}</details>",
                    shown,
                    _preformatted(masked_text(event.traceback)),
                )
            return f"{event.at:%Y-%m-%d %H:%M:%S} UTC", event.what, event.actor, shown

        rows = format_html_join(
            "",
            "<tr><td>{}</td><td><b>{}</b></td><td>{}</td><td>{}</td></tr>",
            map(cells, dead_letter.events.all()),
        )
        return format_html("<table>{}</table>", rows)

    @admin.display(description="links")
    def links(self, dead_letter: DeadLetter) -> SafeString:
        """To what it is about, its message, and the message that caused it, as `DLQ_LINKS` says."""
        values = [each.split("=", 1) for each in dead_letter.about if "=" in each]
        named = {
            "message_id": dead_letter.message_id,
            "causation_id": str(dead_letter.headers.get("causation_id") or ""),
            "correlation_id": dead_letter.correlation_id,
        }
        texts = [f"{name}={value}" for name, value in (*values, *named.items()) if value]
        found = [
            (pattern.format(quote(text.removeprefix(begin), safe="")), text)
            for text in texts
            for begin, pattern in conf.links().items()
            if text.startswith(begin) and text != begin
        ]
        return format_html_join(" · ", '<a href="{}">{}</a>', found) or SafeString("none")

    @admin.display(description="dead letters that it caused")
    def children(self, dead_letter: DeadLetter) -> SafeString:
        if not dead_letter.correlation_id:
            return SafeString("none")
        caused = DeadLetter.objects.filter(
            correlation_id=dead_letter.correlation_id, headers__causation_id=dead_letter.message_id
        ).defer(*LARGE)[:20]
        links = (
            (reverse("admin:dlq_deadletter_change", args=[each.pk]), each.call or each.message_id, each.state)
            for each in caused
        )
        return format_html_join(" · ", '<a href="{}">{}</a> ({})', links) or SafeString("none")

    @admin.display(description="edited copies")
    def lineage(self, dead_letter: DeadLetter) -> SafeString:
        """To the dead letter that it was sent again from, and to the copy that was sent of it."""
        named = {"sent again from": dead_letter.origin, "edited as": dead_letter.edited_as}
        if not any(named.values()):
            return SafeString("none")
        known = dict(DeadLetter.objects.filter(message_id__in=named.values()).values_list("message_id", "pk"))
        message = conf.links().get("message_id", "")

        def linked(what: str, message_id: str) -> SafeString:
            if message_id in known:
                url = reverse("admin:dlq_deadletter_change", args=[known[message_id]])
            else:
                url = message.format(quote(message_id, safe=""))
            return format_html('{} <a href="{}">{}</a>' if url else "{0} {2}", what, url, message_id)

        found = [(linked(what, message_id),) for what, message_id in named.items() if message_id]
        return format_html_join(" · ", "{}", found) or SafeString("none")

    @admin.display(description="same problem")
    def same_problem(self, dead_letter: DeadLetter) -> SafeString:
        url = f"{reverse('admin:dlq_deadletter_changelist')}?fingerprint={dead_letter.fingerprint}"
        count = DeadLetter.objects.filter(fingerprint=dead_letter.fingerprint, closed_at=None).count()
        return format_html('<a href="{}">{} unresolved</a>', url, count)


def _without_secrets(dead_letter: DeadLetter | None) -> DeadLetter | None:
    """What a page shows of these as they are, and never saves: a producer writes them as it likes."""
    if dead_letter is not None:
        for name in ("task", "queue", "correlation_id"):
            setattr(dead_letter, name, masked_text(getattr(dead_letter, name)))
    return dead_letter


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _preformatted(text: str) -> SafeString:
    return format_html('<pre class="dlq-text">{}</pre>', text)
