"""`python -m benchmarks [NAME ...]`."""

from nodebench.cli.app import let_idle_threads_sleep

if __name__ == "__main__":
    let_idle_threads_sleep()  # as the command line does, before torch is loaded
    from benchmarks.command import main

    main()
