//! Builds what test clients load but are not linked with:
//!
//! - the bundled SQLite as a shared library, for the workers of the differential test;
//! - the same with lock calls that wait (SQLITE_ENABLE_SETLK_TIMEOUT), for a Python to load in place of Debian's;
//! - the same without extension loading, for a process with two copies;
//! - the VFS `pause`, an extension;
//! - the service whose threads are ended from outside;
//! - a library to preload that shows another time.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_CFG_UNIX").is_none() {
        return;
    }
    let source = PathBuf::from(std::env::var("DEP_SQLITE3_INCLUDE").expect("from libsqlite3-sys"));
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("from cargo"));

    let setlk = out.join("setlk");
    std::fs::create_dir_all(&setlk).expect("OUT_DIR can be written to");
    compile(
        Command::new(compiler())
            .args(["-shared", "-fPIC", "-O1", "-Wl,-soname,libsqlite3.so.0"])
            .args(["-DSQLITE_ENABLE_SETLK_TIMEOUT=1", "-DSQLITE_ENABLE_COLUMN_METADATA"])
            .args(["-DSQLITE_USE_URI=1", "-o"])
            .arg(setlk.join("libsqlite3.so.0"))
            .arg(source.join("sqlite3.c"))
            .args(["-lm", "-lpthread", "-ldl"]),
    );
    println!("cargo:rustc-env=SETLK_SQLITE={}", setlk.display());

    // As Qt and Apple build theirs: nothing of it passes its table of functions to anybody.
    let omit = out.join("omit.so");
    compile(
        Command::new(compiler())
            .args(["-shared", "-fPIC", "-O0", "-DSQLITE_OMIT_LOAD_EXTENSION", "-o"])
            .arg(&omit)
            .arg(source.join("sqlite3.c"))
            .args(["-lm", "-lpthread"]),
    );
    println!("cargo:rustc-env=OMIT_SQLITE={}", omit.display());

    let archive = PathBuf::from(std::env::var("DEP_SQLITE3_LIB_DIR").expect("it is bundled"));
    let newest = out.join("newest.so");
    compile(
        Command::new(compiler())
            .args(["-shared", "-Wl,--whole-archive"])
            .arg(archive.join("libsqlite3.a"))
            .args(["-Wl,--no-whole-archive", "-o"])
            .arg(&newest)
            .args(["-lm", "-lpthread", "-ldl"]),
    );
    println!("cargo:rustc-env=NEWEST_SQLITE={}", newest.display());

    let pause = out.join("pause.so");
    compile(
        Command::new(compiler())
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-I"])
            .arg(&source)
            .arg("-o")
            .arg(&pause)
            .arg(Path::new("src/pause.c")),
    );
    println!("cargo:rustc-env=PAUSE_VFS={}", pause.display());
    println!("cargo:rerun-if-changed=src/pause.c");

    let ended = out.join("ended");
    compile(
        Command::new(compiler())
            .args(["-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-I"])
            .arg(source)
            .arg("-o")
            .arg(&ended)
            .arg(Path::new("src/ended.c"))
            .args(["-lpthread", "-ldl"]),
    );
    println!("cargo:rustc-env=ENDED_THREADS={}", ended.display());
    println!("cargo:rerun-if-changed=src/ended.c");

    let clock = out.join("clock.so");
    compile(
        Command::new(compiler())
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
            .arg(&clock)
            .arg(Path::new("src/clock.c")),
    );
    println!("cargo:rustc-env=SHOWN_CLOCK={}", clock.display());
    println!("cargo:rerun-if-changed=src/clock.c");
}

fn compiler() -> String {
    std::env::var("CC").unwrap_or_else(|_| "cc".to_owned())
}

fn compile(command: &mut Command) {
    let status = command.status().expect("a C compiler");
    assert!(status.success(), "the C compiler failed");
}
