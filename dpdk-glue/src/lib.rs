//! Part of softrdma.
