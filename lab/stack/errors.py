class StackError(Exception):
    """The stack cannot start; the message is one line that says what to do about it."""
