"""The published protocol from one command: sweep, choice, fresh seeds, report."""
