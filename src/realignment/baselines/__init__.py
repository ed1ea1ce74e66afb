"""Methods × seeds × sets in cells, and their comparison."""
