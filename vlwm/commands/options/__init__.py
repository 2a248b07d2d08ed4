"""Name the options of each command: types with their help, in a module for each command."""
