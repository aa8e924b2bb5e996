"""Importance ratios, and corrections for samples of another policy."""
