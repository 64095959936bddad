"""What runs inside the processes of a subject, whichever commit that is: on its PYTHONPATH, and with nothing of lab/ imported."""
