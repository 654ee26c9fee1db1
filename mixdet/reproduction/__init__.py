"""What does the paper report, and what do we get? Counting rule, Table 1, ablations, training protocol.

May use ``benchmark`` and the rooms below it.
"""
