"""The loop and what belongs to it. Takes masks as plain values."""
