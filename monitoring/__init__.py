"""What an operator sees: one snapshot, the alerts that it raises, Prometheus metrics, health and readiness.

Knows no other folder. What it reports comes from callables that settings name (`MONITORING_SOURCES`, see
`monitoring/conf.py`), and every figure comes from the database: a counter in a process's memory starts at 0 again with each
deployment, exists once per web process, and says nothing about the workers, which answer no HTTP.
"""
