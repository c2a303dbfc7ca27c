"""What the evaluation measures: bits (`ledger`), baselines (`ladder`), samples (`classify`)."""
