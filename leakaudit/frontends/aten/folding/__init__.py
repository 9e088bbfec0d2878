"""Numbers that follow from the file alone, computed in numpy as the program would."""
