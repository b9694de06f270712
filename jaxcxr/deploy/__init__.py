"""A trained model at work: bundles, exports, predictions, a local server."""
