"""What codecs cost in bytes and in detections."""
