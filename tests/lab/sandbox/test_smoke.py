import requests


def test_x(sandbox):
    assert requests.get(sandbox.url + "/healthz", timeout=5).json()["status"] == "ok"
    assert sandbox.ledger("charges") == []
