# syntax=docker/dockerfile:1
# Two images from one file: `app` is what runs in production; `lab` adds the sandbox of the outside world.

FROM python:3.12-slim AS app
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /srv/holdfast
# Requirements first: a change of code does not install them again.
COPY requirements.txt requirements-tracing.txt ./
RUN pip install -r requirements.txt -r requirements-tracing.txt \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin holdfast
COPY manage.py gunicorn.conf.py ./
COPY config config
COPY common common
COPY outbox outbox
COPY dlq dlq
COPY resilience resilience
COPY monitoring monitoring
COPY idempotency idempotency
COPY orders orders
COPY payments payments
COPY webhooks webhooks
COPY notifications notifications
# The code stays root's: a process that is taken over cannot change it.
USER holdfast
EXPOSE 8000
# exec form everywhere: the process is PID 1's child (compose sets `init`) and gets the SIGTERM that lets it finish.
CMD ["gunicorn", "config.wsgi", "--bind", "0.0.0.0:8000", "--worker-class", "gthread", "--workers", "2", "--threads", "8", "--graceful-timeout", "25", "--worker-tmp-dir", "/dev/shm"]

FROM app AS lab
USER root
COPY requirements-lab.txt ./
RUN pip install -r requirements-lab.txt && install -d -o holdfast /data
COPY lab lab
USER holdfast
CMD ["python", "-m", "lab.sandbox", "--host", "0.0.0.0", "--port", "8080", "--smtp-port", "2525", "--data", "/data", "--app-url", "http://web:8000"]

# The default target of `docker build`.
FROM app
