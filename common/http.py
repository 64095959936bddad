"""Reading an HTTP answer within a time and a size."""

import time

import requests
import urllib3

#: The most that an answer may hold, in bytes: a hundred times the largest page of a ledger. A larger one cannot be what
#: we asked for, and must not fill the worker's memory.
MAX_ANSWER_BYTES = 32 * 1024 * 1024


def read_within(response: requests.Response, *, since: float, total_s: float) -> None:
    """Take in the body of a response that was asked for with `stream=True`, for `content`, `text` and `json()`.

    It must be complete `total_s` seconds after `since` (`time.monotonic()`): socket timeouts restart with each byte, so
    that `response.content` would wait for a server that drips for as long as it drips. Raises requests.RequestException
    for a body that is late, too large or cut short; the connection is closed then.
    """
    if not isinstance(response.raw, urllib3.BaseHTTPResponse):
        return  # No connection to read from: it was put in place of an answer, as a whole.
    body = bytearray()
    try:
        while chunk := response.raw.read1(65536, decode_content=True):
            body += chunk
            if time.monotonic() - since > total_s:
                raise requests.Timeout(f"{response.url}: the answer was not complete after {total_s:g} s")
            if len(body) > MAX_ANSWER_BYTES:
                raise requests.RequestException(
                    f"{response.url}: the answer is larger than {MAX_ANSWER_BYTES} bytes"
                )
    except urllib3.exceptions.HTTPError as error:
        response.close()
        raise requests.ConnectionError(f"{response.url}: {type(error).__name__}: {error}") from error
    except requests.RequestException:
        response.close()
        raise
    response._content = bytes(body)  # where `content`, `text` and `json()` look
