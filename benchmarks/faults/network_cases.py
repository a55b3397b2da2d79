"""Cases: network."""
