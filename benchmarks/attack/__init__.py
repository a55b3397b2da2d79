"""Attacks on a lab that requires keys, from this machine, with the effect on other clients."""
