"""What one library does with the workload; each module runs in a process, and may run in a Python, of its own."""
