"""Which tickets match their dense networks, and which of them wins: statistics on plain values."""
