//! What is recorded, against what has happened.
