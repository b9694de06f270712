"""Computes intervals, paired tests, metrics of rankings, rates, calibration.

Labels are integers in {1, 0, -1 unknown}; unknown ones are left out. Scores are larger for what is
more positive. Shapes are `[N]`, or `[N, C]` for several classes; clusters `[N]` name the patient
of each example by values that sort.
"""

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1  # values of a label
