"""The files that know other engines."""
