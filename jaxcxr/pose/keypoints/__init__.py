"""2D keypoints: files of detectors, tracks, windows, and a simulated detector."""
