//! The loadable extension neither has nor needs an SQLite of its own, and says so clearly when the
//! one that loads it is too old.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use vfs_tests::{extension, run};

/// An extension with a second SQLite inside would register its VFS with that copy, where nobody
/// looks.
#[test]
fn it_carries_and_needs_no_sqlite() {
    vfs_tests::needs!("nm", "readelf");
    let file = extension().to_str().unwrap();
    let symbols = run("nm", &["--dynamic", file]);
    let exported: Vec<_> =
        symbols.lines().filter(|line| line.contains(" T ")).map(|line| &line[19..]).collect();
    assert_eq!(
        exported,
        [
            "kanban_vfs_last_line",
            "kanban_vfs_register",
            "kanban_vfs_register_by",
            "sqlite3_kanbanvfs_default_init",
            "sqlite3_kanbanvfs_init"
        ]
    );
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

/// A program is linked with the library by its path, in a build directory, and then installed.
/// Without a name (soname) of the library, the program would look for that path on every machine.
#[cfg(target_os = "linux")]
#[test]
fn it_has_a_name_of_its_own() {
    vfs_tests::needs!("readelf");
    let directory = tempfile::tempdir().unwrap();
    let [source, program] = ["program.c", "program"].map(|name| directory.path().join(name));
    std::fs::write(
        &source,
        "int kanban_vfs_register(); int main(void) { return (long)kanban_vfs_register == 1; }",
    )
    .unwrap();
    let file = extension().to_str().unwrap();
    run("cc", &[source.to_str().unwrap(), file, "-o", program.to_str().unwrap()]);
    let needed = run("readelf", &["--dynamic", "--wide", program.to_str().unwrap()]);
    assert!(needed.contains("[libkanban_vfs.so]"), "{needed}");
    assert!(!needed.contains(file), "{needed}");
}

unsafe extern "C" fn version_3_30_1() -> c_int {
    3_030_001
}

unsafe extern "C" fn allocate(n: c_int) -> *mut c_void {
    // SAFETY: any size may be asked for.
    unsafe { libc::malloc(n as usize) }
}

/// SQLite 3.30.1 loads the extension. It lacks functions that the VFS calls; a call of what is in
/// their place would crash the application.
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

/// Calls `kanban_vfs_register` of the extension, with a library that is loaded for this. Returns
/// its answer, and the message that it wrote into `size` bytes.
fn register_with(library: &str, size: usize) -> (c_int, String) {
    let [extension, library] =
        [extension().to_str().unwrap(), library].map(|file| CString::new(file).unwrap());
    let mut message: Vec<c_char> = vec![-1; size + 1];
    // SAFETY: the libraries and the function exist, and stay; the message has room for `size` bytes.
    let rc = unsafe {
        let extension = libc::dlopen(extension.as_ptr(), libc::RTLD_NOW);
        let library = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
        assert!(!extension.is_null() && !library.is_null());
        let symbol = libc::dlsym(extension, c"kanban_vfs_register".as_ptr());
        assert!(!symbol.is_null());
        let register: extern "C" fn(*mut c_void, c_int, *mut c_char, usize) -> c_int =
            std::mem::transmute(symbol);
        assert_eq!(
            register(library, 0, std::ptr::null_mut(), size),
            register(library, 0, message.as_mut_ptr(), 0)
        );
        register(library, 0, message.as_mut_ptr(), size)
    };
    assert_eq!(message[size], -1, "nothing is written behind the message");
    let message: Vec<u8> = message.iter().map(|byte| byte.cast_unsigned()).collect();
    let end = message.iter().position(|byte| *byte == 0).unwrap();
    (rc, String::from_utf8(message[..end].to_vec()).unwrap())
}

/// An application without extension loading names a library that has no SQLite, or only one that is
/// too old. It gets a message about that, cut to the room that it has.
#[test]
fn a_library_without_a_good_sqlite_is_refused() {
    const SQLITE_ERROR: c_int = 1;
    const SQLITE_NOTFOUND: c_int = 12;
    let (rc, said) = register_with("libc.so.6", 200);
    assert_eq!(rc, SQLITE_NOTFOUND);
    let whole = "kanban-vfs: function sqlite3_libversion_number was not found: is the SQLite \
                 linked statically?";
    assert_eq!(said, whole);
    assert_eq!(register_with("libc.so.6", whole.len()).1, whole[..whole.len() - 1]);
    assert_eq!(register_with("libc.so.6", 1).1, "");

    let directory = tempfile::tempdir().unwrap();
    let old = directory.path().join("old.so");
    let source = directory.path().join("old.c");
    std::fs::write(&source, "int sqlite3_libversion_number(void) { return 3030001; }").unwrap();
    let (old, source) = (old.to_str().unwrap(), source.to_str().unwrap());
    run("cc", &["-shared", "-fPIC", "-o", old, source]);
    let (rc, said) = register_with(old, 200);
    assert_eq!(rc, SQLITE_ERROR);
    assert_eq!(said, "kanban-vfs: SQLite 3.30.1 is too old; 3.31.0 or later is needed");
}

/// An SQLite built without extension loading passes no functions to an entry point.
#[test]
fn an_sqlite_without_extension_loading_is_refused() {
    let file = CString::new(extension().to_str().unwrap()).unwrap();
    // SAFETY: the library and the entry point exist; it is called as such an SQLite does.
    unsafe {
        let library = libc::dlopen(file.as_ptr(), libc::RTLD_NOW);
        let symbol = libc::dlsym(library, c"sqlite3_kanbanvfs_init".as_ptr());
        assert!(!symbol.is_null());
        let init: extern "C" fn(*mut c_void, *mut *mut c_char, *const *const ()) -> c_int =
            std::mem::transmute(symbol);
        let mut message = std::ptr::null_mut();
        assert_eq!(init(std::ptr::null_mut(), &raw mut message, std::ptr::null()), 1);
        assert!(message.is_null());
    }
}
