"""Fixtures of the whole run."""

pytest_plugins = ["tests.lab.sandbox_fixture"]
