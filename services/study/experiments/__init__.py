"""The study's experiments, one file a table or figure."""
