"""The version, in one place, so that no module imports the package's face for it."""

__version__ = "0.1.0"
