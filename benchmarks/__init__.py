"""What is fast, measured: each benchmark prints a table and adds a row to benchmarks/results.csv."""
