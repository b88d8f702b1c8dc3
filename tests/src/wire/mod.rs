//! A wire between two network interfaces: a rate, a queue, a delay, and troubles that follow from a seed.
//!
//! - [`Line`]: one direction of it, without IO: frames and the time go in, frames and deadlines come out.
//! - [`Settings`], [`Trouble`]: what a line is told.
//! - [`tap`]: the interfaces that the program `wire` stands between.

mod line;
mod settings;
pub mod tap;

#[cfg(test)]
mod tests;

pub use line::{Counters, Line};
pub use settings::{Settings, SettingsError, Trouble};
