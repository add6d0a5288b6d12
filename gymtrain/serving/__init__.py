"""Faces on a trained model for those who serve it."""
