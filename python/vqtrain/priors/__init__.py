"""Models of codes: one interface (`vqtrain.priors.prior`), one file per model."""
