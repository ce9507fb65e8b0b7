"""What tests share: tiny sweeps and trainings, made-up results and files."""
