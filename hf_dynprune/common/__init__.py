"""What all rooms use and none owns: files, the logger, tables, checks of values."""
