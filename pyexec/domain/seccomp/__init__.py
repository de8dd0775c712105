"""The filter of system calls: the policy, and its forms for the kernel and for Docker."""
