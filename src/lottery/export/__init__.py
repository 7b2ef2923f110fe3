"""From a ticket to a network that runs elsewhere, small and measured."""
