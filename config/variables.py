"""Every environment variable that Holdfast reads, with its default and its meaning; `config.env` reads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One row of the table: `default=None` means that the variable is required."""

    default: str | None
    meaning: str


VARIABLES: dict[str, Variable] = {
    "DATABASE_URL": Variable(
        None,
        "PostgreSQL, for example postgres://user:password@host:5432/holdfast; of several servers,"
        " host:5432,other:5432, the one that accepts writes is used",
    ),
    "BROKER_URL": Variable(
        None, "broker: redis://…, amqp://… (RabbitMQ), or sentinel://host:26379/0;sentinel://…"
    ),
    "BROKER_MASTER_NAME": Variable(
        "mymaster", "with sentinel://…: the name of the master that the sentinels watch"
    ),
    "BROKER_CONSUMER_TIMEOUT": Variable(
        "1800", "RabbitMQ's consumer_timeout in seconds; checked against the tasks' time limits"
    ),
    "REDIS_URL": Variable(
        None,
        "Redis for locks, rate limits and the cache: redis://…, or sentinel://host:26379/0;sentinel://…",
    ),
    "REDIS_MASTER_NAME": Variable(
        "mymaster", "with sentinel://… in REDIS_URL: the name of the master that the sentinels watch"
    ),
    "SENTINEL_USERNAME": Variable("", "user of the sentinels themselves"),
    "SENTINEL_PASSWORD": Variable(
        "", "password of the sentinels themselves; that of the servers is in the URL of the first one"
    ),
    "SENTINEL_TLS": Variable("0", "1 for TLS to the sentinels, and to the servers that they name"),
    "SECRET_KEY": Variable(None, "Django's signing key; at least 50 random characters"),
    "DEBUG": Variable("0", "1 shows tracebacks in the browser; never in production"),
    "ALLOWED_HOSTS": Variable("127.0.0.1,localhost", "host names this site answers to, comma separated"),
    "SECURE": Variable("0", "1 behind TLS: secure cookies, HSTS and the redirect to https"),
    "CSRF_TRUSTED_ORIGINS": Variable("", "origins with scheme that may post to the admin, comma separated"),
    "STRIPE_API_BASE": Variable("https://api.stripe.com", "address of the payment gateway"),
    "STRIPE_API_KEY": Variable(None, "secret key of the payment gateway"),
    "STRIPE_WEBHOOK_SECRET": Variable(None, "signing secret of the gateway's events"),
    "EMAIL_URL": Variable(
        "smtp://localhost:25",
        "mail server: smtp://user:password@host:port; submission://… for STARTTLS, smtp://…?ssl=1 for TLS",
    ),
    "DEFAULT_FROM_EMAIL": Variable("orders@holdfast.example", "sender of every email"),
    "PASSWORD_RESET_URL": Variable(
        "http://127.0.0.1:8000/reset/{uid}/{token}/", "link in password reset emails"
    ),
    "WAREHOUSE_URL": Variable(None, "base address of the warehouse API"),
    "CRM_URL": Variable(None, "base address of the CRM API"),
    "WEBHOOKS_ALLOW_PRIVATE": Variable("0", "1 lets webhooks go to private addresses (the lab does)"),
    "METRICS_TOKEN": Variable(
        "", "Bearer token that /metrics and /alerts.json require; empty: they answer without one"
    ),
    "ALERT_EMAILS": Variable(
        "", "email addresses to which beat sends which alerts fire and end, comma separated"
    ),
    "ALERT_WEBHOOK_URL": Variable("", "URL to which beat posts the same as JSON, for example of a chat"),
    "ALERT_REPEAT": Variable("14400", "seconds after which an alert that still fires is sent again"),
    "PROXY_COUNT": Variable(
        "0",
        "reverse proxies before the web process that append to X-Forwarded-For; with 0 failed logins are counted by"
        " the address that connects",
    ),
    "RETRY_SCALE": Variable("1.0", "factor on every retry delay; the demo uses a small one"),
    "RETRY_MINIMUM": Variable("0", "least number of retries of every task that retries; the demo raises it"),
    "ORDERS_MAX_BACKLOG": Variable("100000", "open messages above which new orders are answered 503"),
    "ORDERS_PER_SECOND": Variable("1000", "orders a second that one API key may place; above it 429"),
    "WAREHOUSE_PER_SECOND": Variable(
        "50", "calls a second to the warehouse, of all workers together; above it they wait"
    ),
    "OUTBOX_DEPTH_LIMIT": Variable("2000", "most messages that the relay keeps in one broker queue"),
    "OUTBOX_BATCH": Variable("500", "most messages that the relay marks and publishes at once"),
    "OUTBOX_RETENTION": Variable("604800", "seconds that settled messages are kept before pruning"),
    "OUTBOX_MARGIN": Variable("5", "seconds after which a published, unstarted message may count as lost"),
    "OUTBOX_WORKER_TIMEOUT": Variable("6", "seconds without a heartbeat after which a worker counts as dead"),
    "OUTBOX_SKEW_GRACE": Variable(
        "3600",
        "seconds for which workers may refuse a message's task or arguments as unknown, while versions run side by side,"
        " before it is a dead letter",
    ),
    "VISIBILITY_TIMEOUT": Variable("900", "seconds after which Redis redelivers an unacknowledged message"),
    "WORKER_PREFETCH": Variable(
        "1",
        "messages that a worker holds for each of its processes (on RabbitMQ: of each queue); more than 1 keeps"
        " processes busy whose tasks take a few milliseconds, and lets a message wait behind a long task while another"
        " worker is idle",
    ),
    "WORKER_REMOTE_CONTROL": Variable(
        "0",
        "1 lets `celery inspect`, `celery control` and Flower speak to the workers; then every client that can write to the"
        " broker can stop them and revoke their tasks",
    ),
    "DATABASE_CONNECTIONS": Variable(
        "0",
        "connections that all processes together may need; checked at start. 0 computes it from the numbers below,"
        " for one of each process of the Procfile",
    ),
    "WEB_WORKERS": Variable("1", "web processes"),
    "WEB_THREADS": Variable("8", "threads of one web process"),
    "CRITICAL_CONCURRENCY": Variable("4", "worker processes of the queue `critical`: payments"),
    "HIGH_CONCURRENCY": Variable("2", "of the queue `high`: emails that a user waits for"),
    "DEFAULT_CONCURRENCY": Variable("2", "of the queue `default`"),
    "LOW_CONCURRENCY": Variable("1", "of the queue `low`: invoices, reports, imports, pruning"),
    "LOG_LEVEL": Variable(
        "INFO", "level of the application's own log; in workers and beat, `--loglevel` is that of Celery's"
    ),
    "TRACING": Variable(
        "0",
        "1 sends the traces of requests and their tasks by OpenTelemetry, whose own variables (OTEL_EXPORTER_OTLP_ENDPOINT,"
        " OTEL_SERVICE_NAME, …) say where to; needs requirements-tracing.txt",
    ),
    "LOG_FORMAT": Variable("human", "lines of the log: `human`, or `json` for one JSON object each"),
}
