//! Linux, and in principle every unix with open-file-description locks.

mod descriptors;
mod directory;
mod files;
mod inode;
pub(crate) mod large_files;
mod lines;
mod locks;
mod memory;
mod mounts;
#[cfg(target_os = "linux")]
mod one_process;
mod processes;
#[cfg(target_os = "linux")]
mod scratch;
mod this_process;
mod thread;
#[cfg(target_os = "linux")]
mod vdso;
mod without_waiting;
mod words;

pub(crate) use descriptors::*;
pub(crate) use directory::*;
pub(crate) use files::*;
pub(crate) use inode::*;
pub(crate) use lines::*;
pub(crate) use locks::*;
pub(crate) use memory::*;
pub(crate) use mounts::*;
pub(crate) use processes::*;
pub(crate) use this_process::*;
pub(crate) use thread::*;
pub(crate) use words::*;
