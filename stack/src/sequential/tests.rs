//! Two engines on one wire and one virtual clock.

mod bare;
mod ending;
mod frames;
mod listening;
mod network;
mod transfer;
mod world;
