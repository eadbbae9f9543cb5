//! StateStore over an in-process engine
