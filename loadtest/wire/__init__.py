"""A load generator that costs little: requests made beforehand, put on the wire by hand."""
