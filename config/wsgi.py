"""The WSGI application that gunicorn serves."""

import os
import sys

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_wsgi_application()

from django.core.validators import validate_email  # noqa: E402  (these need the applications)
from django.db import connection  # noqa: E402
from django.urls import get_resolver  # noqa: E402

from dlq import checks as dlq_checks  # noqa: E402
from outbox import checks as outbox_checks  # noqa: E402

lines = [*outbox_checks.serious(), *dlq_checks.serious()]
# A preloaded application is forked, and the processes must not share a connection.
connection.close()
# The first request would import and compile it, while all others of its process wait for that: 0.5 s.
get_resolver().url_patterns  # noqa: B018
validate_email("ada@example.com")
if lines:
    sys.stderr.writelines(f"{line}\n" for line in lines)
    # gunicorn's word for "will never boot": with any other status it would start the process again, for ever.
    raise SystemExit(3)
