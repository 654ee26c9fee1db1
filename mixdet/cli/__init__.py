"""What does a user type? Arguments, configs with options, errors in one line. May use every other room."""
