"""Notifications: mail templates, mail sent once per business reason, and the log of what was sent."""
