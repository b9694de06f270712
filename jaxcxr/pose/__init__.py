"""The pose task: sequences of 2D keypoints to 3D joints, root-relative."""
