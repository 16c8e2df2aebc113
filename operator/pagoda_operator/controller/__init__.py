"""The shell around `core.plan`: watch, queue, observe, plan, apply, report.

An event only says which service to look at; what to do is decided from what is. Every file is one noun of
that sentence, and `watch` is the only one that knows kopf.
"""
