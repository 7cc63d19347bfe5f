"""Tools of the project itself: scripts of the tasks, checks of behaviour, tests and dependencies."""
