"""The control room: one page that says how the system is, live, for operators."""
