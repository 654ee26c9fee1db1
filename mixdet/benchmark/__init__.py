"""What does a network cost? Parameters, multiply-adds, time and memory. May use ``deploy`` and the rooms below it."""
