//! The few system calls that rustix lacks.
