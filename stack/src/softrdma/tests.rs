//! The engine against scripts: one exchange for each rule, named by where the rule stands.

mod attacks;
mod closing;
mod cookies;
mod faults;
mod forged;
mod hostile;
mod network;
mod opening;
mod options;
mod script;
mod segments;
mod sending;
mod work;
