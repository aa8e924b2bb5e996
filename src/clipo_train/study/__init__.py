"""Controlled studies: arms x seeds, paired by seed; see `clipo study`."""
