"""The tasks of `where_it_pays.py`: one module per kind of data."""
