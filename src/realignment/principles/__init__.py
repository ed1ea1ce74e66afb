"""Which principles explain the choices in preference pairs: an undocumented policy, inferred."""
