"""2D keypoints: files of detectors, tracks of people, and frame rates."""
