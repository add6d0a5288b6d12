"""The loop, and what goes on around it: batches, optimizers, callbacks, the best weights."""
