"""`python -m benchmarks [NAME ...]`."""

from nodebench.planning.available_resources import rest_idle_threads

if __name__ == "__main__":
    rest_idle_threads()  # as the command line does, before torch is loaded
    from benchmarks.command import main

    main()
