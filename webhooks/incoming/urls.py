from django.urls import path

from .signatures import stripe_signature
from .views import receiver

app_name = "webhooks_incoming"
urlpatterns = [path("gateway", receiver(provider="gateway", verify=stripe_signature), name="gateway")]
