"""The project's own speed, measured: `make bench`."""

from nodebench.planning.available_resources import rest_idle_threads

rest_idle_threads()  # as the command line does, before torch is loaded
