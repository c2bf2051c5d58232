"""What serving costs: our gateway on each transport against the limits of this machine, measured in one run."""
