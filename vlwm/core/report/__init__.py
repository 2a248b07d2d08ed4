"""Write report.html: one self-contained page of a run that opens anywhere, without a network."""
