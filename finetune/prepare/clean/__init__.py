"""Text as every later step may expect it: repaired, judged, without what nobody wants to learn."""
