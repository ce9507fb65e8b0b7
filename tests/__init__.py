"""Tests, in the rooms of the package, of the whole system and of the project."""
