"""Tests of the whole: kills, full disks, clusters and servers."""
