"""The control room's URLs, to be included at the root of the site."""

from django.urls import path

from monitoring.room import views

urlpatterns = [
    path("", views.control_room, name="control-room"),
    path("control-room/state.json", views.state_json, name="control-room-state"),
    path("control-room/charts.json", views.charts_json, name="control-room-charts"),
]
