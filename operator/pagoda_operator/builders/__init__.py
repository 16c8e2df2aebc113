"""Kubernetes objects of one service, one kind a file: a function from a `Workload` to a plain dict, or to None where
the service wants no such object; pure."""
