"""Text as every later step may expect it: repaired, filtered, without boilerplate and identifiers."""
