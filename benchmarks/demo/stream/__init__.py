"""A stream of scores through the real stack: gateway, queue, people, ledger, certificate."""
