"""Which weights go together: one module each, named as its choice of ``mask.pattern``."""
