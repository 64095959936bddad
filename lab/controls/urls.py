"""Where the forms of the controls post to."""

from django.urls import path

from lab.controls.views import act

urlpatterns = [path("controls/<slug:action>", act, name="lab-controls")]
