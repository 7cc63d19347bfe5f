"""How good a model is: metrics, intervals, results, tables, comparisons and plots."""
