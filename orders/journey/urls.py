"""The page for staff, to be included at the root of the site."""

from django.urls import path

from orders.journey.views import journey

urlpatterns = [path("orders/<int:order_id>/", journey, name="order-journey")]
