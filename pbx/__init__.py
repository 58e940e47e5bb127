"""A virtual PBX engine: Asterisk carries sound and SIP, this package decides what every call does."""

__version__ = "0.1.0"
