"""common/http.py: an answer is taken in within a time and a size, whatever the other side does."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from common import http

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer the next request with these bytes, and close the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(content: bytes) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(content)

    threads = []

    def begin(content: bytes) -> str:
        threads.append(threading.Thread(target=answer, args=(content,), daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield begin
    for thread in threads:
        thread.join(5)
    listener.close()


def read(url: str) -> requests.Response:
    response = requests.get(url, timeout=5, stream=True)
    http.read_within(response, since=time.monotonic(), total_s=5)
    return response


def test_an_answer_is_there_as_a_whole_with_and_without_a_length(serve: Serve) -> None:
    assert read(serve(HEAD + b'Content-Length: 9\r\n\r\n{"id": 1}')).json() == {"id": 1}
    chunked = HEAD + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"id\r\n5\r\n": 1}\r\n0\r\n\r\n'
    assert read(serve(chunked)).json() == {"id": 1}


def test_an_answer_that_is_cut_short_is_a_lost_connection(serve: Serve) -> None:
    url = serve(HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{")
    with pytest.raises(requests.ConnectionError):
        read(url)
    url = serve(HEAD + b"Content-Length: 9\r\n\r\n{")
    with pytest.raises(requests.ConnectionError):
        read(url)


def test_an_answer_above_the_limit_is_not_read_to_its_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1_000)
    url = serve(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
    with pytest.raises(requests.RequestException, match="larger than 1000 bytes"):
        read(url)
