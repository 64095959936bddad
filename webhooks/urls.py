from django.urls import path

from webhooks.views import gateway

app_name = "webhooks"
urlpatterns = [path("gateway", gateway, name="gateway")]
