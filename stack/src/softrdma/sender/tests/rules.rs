//! Scripted exchanges, one a rule.
