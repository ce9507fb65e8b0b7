"""Tests of the project itself: documentation, studies, benchmarks."""
