"""Files of motion capture, of keypoints by VideoPose3D, and of predictions."""
