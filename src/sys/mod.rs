//! System calls. Nothing here knows of SQLite.
#![allow(unsafe_code)]

#[cfg(unix)]
mod descriptors;
#[cfg(unix)]
mod filesystem;
#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub(crate) use descriptors::*;
#[cfg(unix)]
pub(crate) use filesystem::*;
#[cfg(unix)]
pub(crate) use unix::*;
