"""What does the paper report, and what do we get? Counting rule, Table 1, ablations, protocol. May use ``benchmark``
and below.
"""
