//! The loadable extension neither carries nor needs an SQLite, and says so clearly when the one
//! that loads it is too old.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use vfs_tests::{extension, run};

/// An extension that carries a second SQLite registers its VFS with that copy, where nobody looks.
#[test]
fn it_carries_and_needs_no_sqlite() {
    let file = extension().to_str().unwrap();
    let symbols = run("nm", &["--dynamic", file]);
    let exported: Vec<_> =
        symbols.lines().filter(|line| line.contains(" T ")).map(|line| &line[19..]).collect();
    assert_eq!(exported, ["sqlite3_kanbanvfs_default_init", "sqlite3_kanbanvfs_init"]);
    for line in symbols.lines().filter(|line| line.contains("sqlite3_")) {
        assert!(line.contains(" T sqlite3_kanbanvfs_"), "{line}");
    }
    let needed = run("readelf", &["--dynamic", "--wide", file]);
    assert!(needed.contains("(NEEDED)"), "{needed}");
    assert!(!needed.contains("sqlite"), "{needed}");
    let bytes = std::fs::read(file).unwrap();
    let has = |text: &[u8], bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    let of_its_parser = b"malformed database schema";
    assert!(!has(of_its_parser, &bytes), "it carries an SQLite");
    let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(has(of_its_parser, &this), "and this program does");
}

unsafe extern "C" fn version_3_30_1() -> c_int {
    3_030_001
}

unsafe extern "C" fn allocate(n: c_int) -> *mut c_void {
    // SAFETY: any size may be asked for.
    unsafe { libc::malloc(n as usize) }
}

/// SQLite 3.30.1 loads the extension. It lacks functions the VFS calls; calling what lies there
/// instead would crash the application.
#[test]
fn an_old_sqlite_is_refused() {
    let mut functions = [std::ptr::null::<()>(); 240];
    functions[67] = version_3_30_1 as *const ();
    functions[68] = allocate as *const ();
    let file = CString::new(extension().to_str().unwrap()).unwrap();
    for entry in [c"sqlite3_kanbanvfs_init", c"sqlite3_kanbanvfs_default_init"] {
        // SAFETY: the library and the entry point exist; the entry point is called as SQLite does,
        // with all the functions it may use before it has checked the version.
        unsafe {
            let library = libc::dlopen(file.as_ptr(), libc::RTLD_NOW);
            assert!(!library.is_null());
            let symbol = libc::dlsym(library, entry.as_ptr());
            assert!(!symbol.is_null());
            let init: extern "C" fn(*mut c_void, *mut *mut c_char, *const *const ()) -> c_int =
                std::mem::transmute(symbol);
            let mut message = std::ptr::null_mut();
            assert_eq!(init(std::ptr::null_mut(), &raw mut message, functions.as_ptr()), 1);
            let said = CStr::from_ptr(message).to_str().unwrap();
            assert_eq!(said, "kanban-vfs: SQLite 3.30.1 is too old; 3.31.0 or later is needed");
            libc::free(message.cast());
        }
    }
}
