"""What learns: the contract of a model, the torch models, the adapter for scikit-learn."""
