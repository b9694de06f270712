"""Transformers and recurrent networks over sequences."""
