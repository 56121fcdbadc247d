//! System calls. Nothing here knows of SQLite.
#![allow(unsafe_code)]

#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub(crate) use unix::*;
