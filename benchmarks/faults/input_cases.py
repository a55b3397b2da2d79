"""Cases: input."""
