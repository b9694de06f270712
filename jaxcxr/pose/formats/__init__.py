"""Files of motion capture and of pose data sets."""
