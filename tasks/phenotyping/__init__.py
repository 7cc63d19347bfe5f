"""Task folder: the definition in task.py, and the scripts of its runs."""
