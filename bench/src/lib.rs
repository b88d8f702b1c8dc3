//! Measurements of softrdma beside what it is measured against; the programs are in `src/bin`.

#![forbid(unsafe_code)]
