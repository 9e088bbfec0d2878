"""Where untrusted input is met: limits on what is read, and a helper process for native code."""
