"""A proxy that does to a connection what networks and peers do, at a given time and on record."""
