"""What an underdetermined layer still gives away: the plausible pictures that fit its equations."""
