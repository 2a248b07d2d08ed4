"""Check recorded sessions: faults of time, mount and axes that frames of one place show."""
