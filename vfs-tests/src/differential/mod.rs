//! The differential test: the same schedule of steps, by up to six connections in up to three
//! processes, on the stock VFS and on ours. After every step the answers, the states of the
//! transactions and the contents of the files are compared. What may differ is in one table,
//! [`allowed::TABLE`].
//!
//! Steps are taken one at a time and nobody waits. So the seed decides the whole schedule, and a
//! difference can be reproduced. It is then shrunk to the few steps that are needed.

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
