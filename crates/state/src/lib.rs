//! From the [state] section to an open State
