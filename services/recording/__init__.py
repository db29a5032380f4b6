"""A stream's packets in the files of a folder: written beside a camera, and read as one line."""
