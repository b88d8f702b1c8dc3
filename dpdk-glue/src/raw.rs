//! Plain frames.
