"""What ``import lottery`` offers beside finished runs: studies of one's own network and data."""
