"""What two stages must agree on, and the one command line. Light imports only; imports no stage."""

__version__ = "0.1.0"
