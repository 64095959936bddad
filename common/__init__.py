"""What the domain apps share: one role a file, below all of them. The pattern folders do without it."""
