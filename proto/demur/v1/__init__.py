"""Demur's own contract: the stubs of `demur/v1/*.proto`."""
