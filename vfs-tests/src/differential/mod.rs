//! The differential test: the same schedule of steps, by up to six connections in up to three
//! processes, on the stock VFS and on ours. What they answer, where their transactions stand and what
//! is in the files is compared after every step; what may differ is in one table, [`allowed::TABLE`].
//!
//! Steps are taken one at a time and nobody waits, so a schedule is a function of its seed, and what
//! it shows is shown again. A difference is shrunk to the few steps that it takes.

pub mod allowed;
pub mod api;
pub mod command;
pub mod compare;
pub mod connection;
pub mod generate;
pub mod observe;
pub mod process;
pub mod protocol;
pub mod run;
pub mod schedule;
pub mod shrink;
pub mod side;
pub mod statements;
pub mod worker;
