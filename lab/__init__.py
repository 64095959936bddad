"""The laboratory: embedded stack, sandbox of the outside world, demo. Nothing that production imports lives here."""
