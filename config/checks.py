"""`check --deploy`: settings that are right on a developer's machine and wrong where money moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

LOCAL = ("localhost", "127.0.0.1", "::1")


@register(Tags.security, deploy=True)
def check_deployment(**_: Any) -> list[CheckMessage]:
    """Each names the environment variable to set."""
    return [*_hosts(), *_gateway(), *_webhooks(), *_email(), *_metrics()]


def _hosts() -> Iterator[CheckMessage]:
    if "*" in settings.ALLOWED_HOSTS:
        yield Error(
            "ALLOWED_HOSTS contains *: links in emails would point to any host that a request names. List the site's host names",
            id="config.E001",
        )


def _gateway() -> Iterator[CheckMessage]:
    if urlsplit(settings.STRIPE_API_BASE).scheme != "https":
        yield Error(
            "STRIPE_API_BASE is not https: the secret key would travel in clear text", id="config.E002"
        )
    if not settings.STRIPE_API_KEY.startswith(("sk_live_", "rk_live_")):
        yield Error(
            "STRIPE_API_KEY is not a live key (sk_live_... or rk_live_...): orders would be delivered unpaid",
            id="config.E003",
        )
    if not settings.STRIPE_WEBHOOK_SECRET.startswith("whsec_"):
        yield Error(
            "STRIPE_WEBHOOK_SECRET is not a signing secret (whsec_...): anyone could forge the gateway's events",
            id="config.E004",
        )


def _webhooks() -> Iterator[CheckMessage]:
    if settings.WEBHOOKS_ALLOW_PRIVATE:
        yield Error(
            "WEBHOOKS_ALLOW_PRIVATE is on: a customer's webhook address could reach servers of the internal network",
            id="config.E005",
        )


def _email() -> Iterator[CheckMessage]:
    if settings.EMAIL_HOST_PASSWORD and not (settings.EMAIL_USE_TLS or settings.EMAIL_USE_SSL):
        yield Error(
            "EMAIL_URL has a password and no TLS: use submission://… or smtp://…?ssl=1", id="config.E006"
        )
    if settings.DEFAULT_FROM_EMAIL.endswith(".example"):
        yield Warning("DEFAULT_FROM_EMAIL is an example address: mail servers refuse it", id="config.W001")
    link = urlsplit(settings.PASSWORD_RESET_URL)
    if link.scheme != "https" or link.hostname in LOCAL:
        yield Warning(
            "PASSWORD_RESET_URL is not an https address of the site: its link would not work, or would reveal the token",
            id="config.W002",
        )


def _metrics() -> Iterator[CheckMessage]:
    if not settings.MONITORING_METRICS_TOKEN:
        yield Warning(
            "METRICS_TOKEN is not set: /metrics answers everybody who reaches the web process. Set it, or let no request"
            " for /metrics through the reverse proxy",
            id="config.W003",
        )
