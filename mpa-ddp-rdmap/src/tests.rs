//! Both halves, two endpoints.

mod operations;
