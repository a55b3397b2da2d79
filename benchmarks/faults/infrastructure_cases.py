"""Cases: infrastructure."""
