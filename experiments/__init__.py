"""Measurements that meet the theory: studies, their trials, and the verdicts on their claims."""

# Nothing is imported here: a worker process imports this package before it has set its thread
# count, and `--help` before it knows whether anything has to be computed at all.
