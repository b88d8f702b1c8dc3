//! The engine against scripts: one exchange for each rule, named by where the rule stands.

mod closing;
mod cookies;
mod faults;
mod hostile;
mod network;
mod opening;
mod options;
mod script;
mod segments;
mod sending;
