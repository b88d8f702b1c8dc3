//! Two engines on one wire and one virtual clock.

mod ending;
mod transfer;
mod world;
