"""`python -m lab.sandbox`: run the outside world until SIGTERM, Ctrl-C or the end of the parent process."""

from __future__ import annotations

import argparse
import errno
import fcntl
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType

from lab.sandbox.app import Sandbox
from lab.sandbox.idempotency import DAY_S


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop. Returns 0, or 1 after one line on stderr when it cannot start."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    stop = threading.Event()

    def stopped(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGINT, stopped)
    _stop_with_parent(stop)

    try:
        options.data.mkdir(parents=True, exist_ok=True)
        # A second sandbox on the same ledger would not know which idempotency keys are in flight in the
        # first.
        lock = (options.data / "sandbox.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        taken = error.errno in (errno.EAGAIN, errno.EACCES) and options.data.is_dir()
        reason = "another sandbox is using it" if taken else _reason(error)
        return _refuse(f"cannot use {options.data}: {reason}")
    try:
        mail_listener = _listen(options.host, options.smtp_port, "--smtp-port")
        sandbox = Sandbox(
            http=(options.host, options.port),
            mail_listener=mail_listener,
            directory=options.data,
            app_url=options.app_url,
            webhook_secret=os.environ.get("STRIPE_WEBHOOK_SECRET", "whsec_sandbox"),
            keys_ttl_s=options.keys_ttl,
        )
    except _Busy as busy:
        return _refuse(str(busy))
    except OSError as error:
        return _refuse(f"cannot listen on {options.host}:{options.port} (--port): {_reason(error)}")

    sandbox.start()
    if options.url_file:
        _write(options.url_file, sandbox.url + "\n")
    print(f"sandbox at {sandbox.url}/ smtp {sandbox.smtp[0]}:{sandbox.smtp[1]}", flush=True)
    try:
        stop.wait()
    finally:
        sandbox.stop()
        if options.url_file:
            options.url_file.unlink(missing_ok=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.sandbox",
        description="The outside world for the lab: payment gateway, warehouse, CRM, merchants and mail"
        " server, with fault dials (PUT /faults) and a durable ledger (GET /ledger/...). GET / lists every"
        " endpoint.",
        epilog="STRIPE_WEBHOOK_SECRET in the environment signs the gateway's events.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=0, help="HTTP port; 0 = any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--smtp-port", type=_port, default=0, help="SMTP port; 0 = any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("var/sandbox"),
        help="directory of the ledger (default: %(default)s)",
    )
    parser.add_argument(
        "--app-url",
        default="",
        help="base URL of the app; events are posted to its /webhooks/gateway (default: not posted)",
    )
    parser.add_argument("--url-file", type=Path, help="file to write the address to; removed at the end")
    parser.add_argument(
        "--keys-ttl",
        type=float,
        default=DAY_S,
        help="seconds that an idempotency key is remembered (default: a day)",
    )
    return parser


class _Busy(Exception):
    pass


def _listen(host: str, port: int, option: str) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=128)
    except OSError as error:
        raise _Busy(f"cannot listen on {host}:{port} ({option}): {_reason(error)}") from None


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def _reason(error: OSError) -> str:
    """The system's words alone: Python adds the address to some of them, which the line already says."""
    if error.errno is None or error.errno < 0:  # a host that cannot be looked up has codes of its own
        return str(error)
    return os.strerror(error.errno)


def _refuse(reason: str) -> int:
    print(f"sandbox: {reason}", file=sys.stderr)
    return 1


def _write(path: Path, text: str) -> None:
    """Written whole or not at all: what waits for the file must not read half an address."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def _stop_with_parent(stop: threading.Event) -> None:
    """Stop when the parent dies, even by SIGKILL.

    Polled, since Linux sends its parent-death signal when the *thread* that started the process ends, which
    is no reason to stop.
    """
    parent = os.getppid()

    def watch() -> None:
        while not stop.wait(0.5):
            if os.getppid() != parent:
                stop.set()

    if parent > 1:
        threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
