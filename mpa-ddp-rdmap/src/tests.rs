//! Both halves, two endpoints.

mod operations;
mod ordering;
mod rewriting;
mod violations;
