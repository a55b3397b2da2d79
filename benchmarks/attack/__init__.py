"""Attacks on a lab with keys on, done for real from this machine, beside what other clients saw meanwhile."""
