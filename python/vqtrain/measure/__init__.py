"""What `vqk eval` measures of a run; each module gives one section of `metrics.json`."""
