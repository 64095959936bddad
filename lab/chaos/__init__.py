"""The chaos run: orders flow while a seeded schedule of faults strikes, and the books must agree afterwards."""

#: Seconds between two slots of the run's periodic work: a beat that is away for less than ten of them makes up for each.
SLOT_S = 5
