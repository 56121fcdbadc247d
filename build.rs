//! Names the shared library. A program that is linked with it then looks for that name, wherever the file lay when it was
//! linked. The name has no version: what the library exports (`include/kanban_vfs.h`) is only ever added to. ld.so(8)

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libkanban_vfs.so");
    }
}
