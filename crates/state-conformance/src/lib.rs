//! The executable contract of StateStore
