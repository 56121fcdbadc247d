//! Builds the bundled SQLite a second time, as a shared library that waits inside its lock calls
//! (SQLITE_ENABLE_SETLK_TIMEOUT), for a Python to load in place of Debian's.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = PathBuf::from(std::env::var("DEP_SQLITE3_INCLUDE").expect("from libsqlite3-sys"));
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("from cargo")).join("setlk");
    std::fs::create_dir_all(&out).expect("OUT_DIR can be written to");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-Wl,-soname,libsqlite3.so.0"])
        .args(["-DSQLITE_ENABLE_SETLK_TIMEOUT=1", "-DSQLITE_ENABLE_COLUMN_METADATA"])
        .args(["-DSQLITE_USE_URI=1", "-o"])
        .arg(out.join("libsqlite3.so.0"))
        .arg(source.join("sqlite3.c"))
        .args(["-lm", "-lpthread", "-ldl"])
        .status()
        .expect("a C compiler");
    assert!(status.success(), "the C compiler failed");
    println!("cargo:rustc-env=SETLK_SQLITE={}", out.display());
    println!("cargo:rerun-if-changed=build.rs");
}
