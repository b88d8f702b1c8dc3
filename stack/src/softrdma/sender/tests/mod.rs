//! The sender by itself: rule by rule, and against a simulated path.

mod accounting;
mod paths;
mod rules;
mod simulator;
