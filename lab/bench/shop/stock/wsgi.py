"""The web process: that of `config.wsgi`, without the checks of the outbox."""

from django.core.validators import validate_email
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from lab.bench.shop.stock.celery import app

application = get_wsgi_application()
app.loader.import_default_modules()  # the tasks that it sends by their names
# As in `config.wsgi`: or the first request would import it.
get_resolver().url_patterns  # noqa: B018
validate_email("ada@example.com")
