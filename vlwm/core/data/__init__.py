"""Sessions, frames and batches: what is made from a city or a recording and what training reads."""
