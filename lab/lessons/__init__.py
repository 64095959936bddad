"""The wrong ways of docs/lessons/: short, runnable, and each seen to fail by its test in tests/lessons/."""
