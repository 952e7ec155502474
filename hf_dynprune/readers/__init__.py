"""Data sets as people have them: pictures, masks, texts, from folders, parquet files and the hub."""
