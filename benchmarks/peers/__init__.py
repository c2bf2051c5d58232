"""Other servers of the protocol beside this gateway: the same model, the same load, in turns."""
