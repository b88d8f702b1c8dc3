//! Both halves, two endpoints.

mod capture;
mod operations;
mod ordering;
mod properties;
mod rewriting;
mod threads;
mod violations;
