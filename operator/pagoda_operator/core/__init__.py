"""The decision: `plan(service, facts, settings)` says what to apply, what to delete and what the status is; pure."""
