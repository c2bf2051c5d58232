"""Learning from outcomes: the ledger, datasets, retraining, evaluation, promotion."""
