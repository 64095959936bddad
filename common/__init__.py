"""What the domain apps share, one role per file. The pattern folders do not import it."""
