"""The chaos run: orders flow while a seeded schedule of faults strikes, and the ledgers must agree afterwards."""

#: Seconds between two ticks of the run's periodic work: a beat that is down for less than ten of them makes up for each.
SLOT_S = 5
