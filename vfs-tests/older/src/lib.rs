//! What the tests of this package need.

#[path = "../../src/base.rs"]
pub mod base;

/// As `vfs_tests::STOCK_VFS`.
pub const STOCK_VFS: &str = if cfg!(windows) { "win32" } else { "unix" };
