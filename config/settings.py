"""Django and Celery settings. Everything that differs between machines comes from `config.env`; what is plugged
into what is in `config.wiring`.
"""

import logging
from datetime import timedelta
from typing import Any

import dj_email_url

from config import addresses
from config.env import BASE_DIR, WEB, Env
from config.log_settings import FORMS, logging_settings
from config.queues import DEFAULT_QUEUE, TIERS, UNDELIVERABLE, declare, is_rabbitmq, transport_options
from config.wiring import *  # noqa: F403

env = Env()

SECRET_KEY = env.text("SECRET_KEY")
DEBUG = env.flag("DEBUG")
ALLOWED_HOSTS = env.items("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = env.origins("CSRF_TRUSTED_ORIGINS")
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
LANGUAGE_CODE = "en-us"
STATIC_URL = "static/"
LOGIN_URL = "admin:login"

INSTALLED_APPS = [
    "config.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",  # Django 6.1 wants it for the index of dlq/
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "axes",  # limits failed logins
    "ninja",  # serves the API reference's scripts from here instead of from a CDN
    "outbox",
    "dlq",
    "monitoring",
    "chartkick.django",  # ships Chart.js, for the control room
    "idempotency",
    "orders",
    "payments",
    "webhooks",
    "webhooks.incoming",
    "notifications",
]
MONITORING_PANELS: list[str] = []
if (BASE_DIR / "lab").is_dir():  # Not in the production image: the embedded stack and its commands.
    INSTALLED_APPS.append("lab")
    MONITORING_PANELS.append("lab.controls.views.panel")

MIDDLEWARE = [
    "monitoring.middleware.Probes",
    "common.request_id.RequestId",
    "csp.middleware.CSPMiddleware",
    "orders.api.head.HeadAsGet",
    "orders.api.problems.ProblemDocuments",
    "orders.api.bodies.WholeBodies",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
# Serves the admin's static files from the packages, so that no collectstatic step is needed.
WHITENOISE_USE_FINDERS = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- Stores -------------------------------------------------------------------------------------------

DATABASES: dict[str, Any] = {
    "default": env.url("DATABASE_URL", "postgres", "postgresql", "pgsql", parse=addresses.database)
}
DATABASES["default"]["OPTIONS"].update(
    # Without these a worker's parent would wait for ever on a database that is gone without having
    # closed its connections: connecting and half-open sockets both have an end.
    connect_timeout=5,
    keepalives=1,
    keepalives_idle=10,
    keepalives_interval=5,
    keepalives_count=3,
    tcp_user_timeout=20_000,
)
# Behind a pooler that shares sessions between transactions a cursor of the server is gone with its transaction, and
# Django's own forms use them. Nothing of ours reads more rows than it may hold.
DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True
# The same the other way round: a process that is frozen inside a transaction, or whose machine is gone, must not hold
# its row locks for the two hours in which the server's kernel notices. Nothing of ours waits for anything but the
# database while a transaction is open; transactional tasks set their own. And a statement that waits for a lock gives
# up while its task has time left to be run again: no signal reaches a process inside of libpq, so that a soft time
# limit would go unnoticed and the hard one end the message. Below the shortest soft limit, far above what a transaction
# of ours takes. A migration that cannot have its lock fails whole and is started again, instead of holding up every
# statement that queues behind it. What the URL itself says comes after these: of two values the last one counts.
DATABASES["default"]["OPTIONS"]["options"] = (
    "-c idle_in_transaction_session_timeout=30000 -c lock_timeout=10000"
    f" {DATABASES['default']['OPTIONS'].get('options', '')}"
).rstrip()
REDIS_URL = env.url("REDIS_URL", "redis", "rediss", "unix", "sentinel", several=True, parse=addresses.store)
# How sentinels are connected to. They are asked at every new connection: each that is down may cost a second and no more,
# and redis-py would ask it eleven times.
SENTINEL_KWARGS: dict[str, Any] = {
    "username": env.text("SENTINEL_USERNAME") or None,
    "password": env.text("SENTINEL_PASSWORD") or None,
    "ssl": env.flag("SENTINEL_TLS"),
    "socket_timeout": 1.0,
    "socket_connect_timeout": 1.0,
    "retry": None,
}
RESILIENCE_REDIS_MASTER = env.text("REDIS_MASTER_NAME")
RESILIENCE_SENTINEL_KWARGS = SENTINEL_KWARGS
CACHES: dict[str, Any] = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": [REDIS_URL],  # in a string Django would take each ; and , for the end of a URL
        # As the patterns have it: a Redis that accepts and never answers must not hold up a web process.
        "OPTIONS": {"socket_timeout": 1.0, "socket_connect_timeout": 1.0},
    }
}
if REDIS_URL.startswith("sentinel:"):
    CACHES["default"]["OPTIONS"] |= {
        "pool_class": "resilience.sentinel.SentinelPool",
        "master_name": RESILIENCE_REDIS_MASTER,
        "sentinel_kwargs": SENTINEL_KWARGS,
        "ssl": SENTINEL_KWARGS["ssl"],
    }
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000_000
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# After five failed logins with a name from an address, that pair is refused for a quarter of an hour. In the database,
# which all web processes share, and without which there is no login anyway. By name *and* address: by name alone,
# anybody could lock the operator out.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "config.lockout.too_many_failures"
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True  # a row for each login, and nothing that removes them
AXES_VERBOSE = False
if proxies := env.integer("PROXY_COUNT", least=0):
    # The proxy that connects to us is in REMOTE_ADDR and not in the header: of n proxies, n - 1 follow the client's
    # address there. With one more, the address that is read could be one that the client chose.
    AXES_IPWARE_PROXY_COUNT = proxies - 1
    IPWARE_STRICT = False  # what a client claims comes before that, and may be of any length
    AXES_IPWARE_META_PRECEDENCE_ORDER = ["HTTP_X_FORWARDED_FOR"]

# What a page may load comes from here, and no script stands in a page: text of others that a page shows by mistake as HTML
# cannot run, nor change the look. Images may stand in the API reference's style sheet.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}

if env.flag("SECURE"):
    SECURE_SSL_REDIRECT = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

# --- The outside world --------------------------------------------------------------------------------

STRIPE_API_BASE = env.url("STRIPE_API_BASE", *WEB)
STRIPE_API_KEY = env.text("STRIPE_API_KEY")
STRIPE_WEBHOOK_SECRET = env.text("STRIPE_WEBHOOK_SECRET")
WAREHOUSE_URL = env.url("WAREHOUSE_URL", *WEB)
CRM_URL = env.url("CRM_URL", *WEB)
WEBHOOKS_ALLOW_PRIVATE = env.flag("WEBHOOKS_ALLOW_PRIVATE")
vars().update(env.url("EMAIL_URL", *dj_email_url.SCHEMES, parse=addresses.email))
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL")
PASSWORD_RESET_URL = env.template("PASSWORD_RESET_URL", "uid", "token")

# --- Patterns -----------------------------------------------------------------------------------------

RETRY_SCALE = env.number("RETRY_SCALE", most=1_000)
RETRY_MINIMUM = env.integer("RETRY_MINIMUM", least=0)
ORDERS_MAX_BACKLOG = env.integer("ORDERS_MAX_BACKLOG", least=0, most=1_000_000_000)
ORDERS_PER_SECOND = env.number("ORDERS_PER_SECOND")
WAREHOUSE_PER_SECOND = env.number("WAREHOUSE_PER_SECOND")
WEB_THREADS = env.integer("WEB_THREADS")
# One a worker process and one a web thread, two a worker's parent (its heartbeat, and what it records), and those of
# the relay and beat.
DATABASE_CONNECTIONS = env.integer("DATABASE_CONNECTIONS", least=0) or (
    sum(env.integer(f"{tier.upper()}_CONCURRENCY") + 2 for tier in TIERS)
    + env.integer("WEB_WORKERS") * WEB_THREADS
    + 2
)

OUTBOX_QUEUES = tuple(TIERS)
OUTBOX_DEPTH_LIMIT = env.integer("OUTBOX_DEPTH_LIMIT", most=1_000_000_000)
OUTBOX_BATCH = env.integer("OUTBOX_BATCH")
OUTBOX_RETENTION = env.number("OUTBOX_RETENTION", least=0)
OUTBOX_MARGIN = env.number("OUTBOX_MARGIN")
OUTBOX_WORKER_TIMEOUT = env.number("OUTBOX_WORKER_TIMEOUT")
OUTBOX_SKEW_GRACE = env.number("OUTBOX_SKEW_GRACE", least=0)
# Tasks that a message without a row may run: what another system publishes itself. Everything else that somebody writes
# to the broker is a dead letter.
OUTBOX_FOREIGN_TASKS: tuple[str, ...] = ()
OUTBOX_CONSUMER_TIMEOUT = env.number("BROKER_CONSUMER_TIMEOUT")
OUTBOX_TRACING = env.flag("TRACING")
DLQ_UNDELIVERABLE = UNDELIVERABLE
MONITORING_QUEUES = OUTBOX_QUEUES
MONITORING_METRICS_TOKEN = env.text("METRICS_TOKEN")
MONITORING_ALERT_EMAILS = tuple(env.items("ALERT_EMAILS"))
MONITORING_ALERT_WEBHOOK_URL = env.url("ALERT_WEBHOOK_URL", *WEB) if env.text("ALERT_WEBHOOK_URL") else ""
MONITORING_ALERT_REPEAT = env.number("ALERT_REPEAT")

# --- Celery -------------------------------------------------------------------------------------------

CELERY_BROKER_URL = env.url(
    "BROKER_URL",
    *("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp"),
    several=True,
    parse=addresses.broker,
)
CELERY_TASK_QUEUES = declare(CELERY_BROKER_URL)
CELERY_TASK_DEFAULT_QUEUE = DEFAULT_QUEUE
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "UTC"
# State lives in the database. With a result backend, its outage would turn successes into failures.
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = env.integer("WORKER_PREFETCH")
# Every client that may write to the broker could stop every worker, or revoke what it runs.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = env.flag("WORKER_REMOTE_CONTROL")
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_TASK_TIME_LIMIT = 360
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 10
CELERY_BROKER_TRANSPORT_OPTIONS = transport_options(
    CELERY_BROKER_URL,
    visibility_timeout_s=env.number("VISIBILITY_TIMEOUT"),
    master_name=env.text("BROKER_MASTER_NAME"),
    sentinel_kwargs=SENTINEL_KWARGS,
)
if CELERY_BROKER_URL.startswith("sentinel:") and SENTINEL_KWARGS["ssl"]:
    CELERY_BROKER_USE_SSL = {"ssl_cert_reqs": "required"}
CELERY_BEAT_SCHEDULE = {
    "prune": {"task": "outbox.retention.prune", "schedule": 600.0, "options": {"queue": "low"}},
    "reconcile": {"task": "payments.tasks.reconcile", "schedule": 900.0, "options": {"queue": "low"}},
    "silence": {"task": "dlq.unanswered.reopen", "schedule": 600.0, "options": {"queue": "low"}},
}
if is_rabbitmq(CELERY_BROKER_URL):
    CELERY_BEAT_SCHEDULE["undeliverable"] = {
        "task": "dlq.undeliverable.collect",
        "schedule": 60.0,
        "options": {"queue": "low"},
    }

LOGGING = logging_settings(
    level=env.choice("LOG_LEVEL", *logging.getLevelNamesMapping()), form=env.choice("LOG_FORMAT", *FORMS)
)
