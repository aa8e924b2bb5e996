"""See the package."""

random_uuid = None
