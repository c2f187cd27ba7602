"""What computes products fastest on this machine: measured once, kept on disk, and chosen by rates alone."""
