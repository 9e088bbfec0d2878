"""The methods that R-CONV is compared with, and R-CONV, behind one interface."""
