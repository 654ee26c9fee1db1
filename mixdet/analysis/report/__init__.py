"""The report of a training: one HTML file that needs nothing else, and a comparison of several trainings."""
