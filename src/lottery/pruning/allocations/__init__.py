"""How many weights each layer keeps: one module each, named as its choice of ``mask.scope``."""
