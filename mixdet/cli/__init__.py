"""What do the command-line tools share? Arguments, configs with options, errors in one line. May use every room."""
