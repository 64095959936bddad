"""pytest plugin: assertions of the scenarios are explained, though they are in no test file."""

import pytest

pytest.register_assert_rewrite("tests.lifting.promises")
