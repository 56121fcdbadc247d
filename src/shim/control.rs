//! The file controls of a database: messages and questions of SQLite, other VFSes and the
//! application. <https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html>
//!
//! | control | sent by, and when | locks of the connection |
//! |---|---|---|
//! | [`FCNTL_OPENED`] | our connect hook, in sqlite3_open() | none |
//! | FCNTL_PDB | SQLite, as soon as the file is open, to say which connection uses it | none |
//! | FCNTL_BUSYHANDLER | SQLite, as soon as the file is open, to say how to call the connection's busy handler | none |
//! | FCNTL_VFSNAME | an application, at any time | any |
//! | FCNTL_PRAGMA | SQLite, when it compiles a pragma | any |
//! | FCNTL_PERSIST_WAL | an application, at any time; SQLite, to ask, when the last connection closes | any; EXCLUSIVE |
//! | FCNTL_LOCK_TIMEOUT | SQLite built with SQLITE_ENABLE_SETLK_TIMEOUT, before and after it asks for locks, to say how long they may block | any |
//! | FCNTL_SYNC | SQLite, when a transaction has written everything, or a rollback is complete, before it syncs the database | EXCLUSIVE; in WAL mode any |
//! | FCNTL_COMMIT_PHASETWO | SQLite, when a transaction is committed | EXCLUSIVE; in WAL mode a READ slot, WRITE is released |
//! | FCNTL_ROLLBACK_ATOMIC_WRITE | SQLite, when the base has undone a batch of writes | EXCLUSIVE |
//!
//! None may change SQLite's locks. The base answers all other controls, so that none is lost.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::base::{Base, parts};
use crate::connection::{Connection, UNENCRYPTED, status};
use crate::ffi::{
    ResultCode, SQLITE_FCNTL_BUSYHANDLER, SQLITE_FCNTL_COMMIT_PHASETWO, SQLITE_FCNTL_LOCK_TIMEOUT,
    SQLITE_FCNTL_PDB, SQLITE_FCNTL_PERSIST_WAL, SQLITE_FCNTL_PRAGMA,
    SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE, SQLITE_FCNTL_SYNC, SQLITE_FCNTL_VFSNAME, no_panic,
    sqlite3_file,
};

/// The file control by which the connect hook asks how the open went. Files of other VFSes do not
/// know it. (SQLite reserves the numbers below 100.)
pub(crate) const FCNTL_OPENED: c_int = 0x6b62_6e01;

/// How the open of a main database went.
#[repr(C)]
pub(crate) struct Opened {
    /// The busy timeout, in ms, of a connection that sets none.
    pub(crate) busy_timeout: c_int,
    /// Why the open is refused: a string that lives as long as the file; null if it is not refused.
    pub(crate) refusal: *const c_char,
}

/// xFileControl: the table at the top of this file says who calls it when, and with which locks.
/// Each write transaction makes one call, FCNTL_COMMIT_PHASETWO, which most connections only note
/// and pass on.
pub(super) unsafe extern "C" fn x_file_control(
    file: *mut sqlite3_file,
    op: c_int,
    arg: *mut c_void,
) -> ResultCode {
    // SAFETY: SQLite passes an open file of this table, and nothing else uses it meanwhile.
    let (base, connection) = unsafe { parts(file) };
    if op != SQLITE_FCNTL_COMMIT_PHASETWO || !connection.note_commit() {
        // SAFETY: what SQLite has passed; the reference is not used any more.
        return unsafe { file_control(file, op, arg) };
    }
    base.file_control(op, arg)
}

/// The rest of [`x_file_control`]. It is a tail call, for which that function saves no registers.
///
/// # Safety
/// SQLite has passed all of it to [`x_file_control`], which uses no reference to the file any more.
#[inline(never)]
unsafe extern "C" fn file_control(
    file: *mut sqlite3_file,
    op: c_int,
    arg: *mut c_void,
) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: the caller's promise.
        let (base, connection) = unsafe { parts(file) };
        // SAFETY: the argument is what each of these controls comes with.
        let answer = unsafe {
            match op {
                FCNTL_OPENED => Some(opened(connection, arg.cast())),
                SQLITE_FCNTL_VFSNAME => Some(vfs_name(base, arg.cast())),
                SQLITE_FCNTL_PRAGMA => pragma(connection, base, arg.cast()),
                SQLITE_FCNTL_PERSIST_WAL => Some(persist_wal(connection, base, arg.cast())),
                SQLITE_FCNTL_LOCK_TIMEOUT => {
                    connection.may_block(*arg.cast());
                    None
                }
                SQLITE_FCNTL_PDB => {
                    base.set_db(arg.cast());
                    connection.has_user();
                    None
                }
                SQLITE_FCNTL_BUSYHANDLER => {
                    base.set_busy_call(arg.cast());
                    None
                }
                SQLITE_FCNTL_SYNC => connection.before_commit().err(),
                SQLITE_FCNTL_COMMIT_PHASETWO => connection.committed().err(),
                SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE => {
                    connection.unwritten();
                    None
                }
                _ => None,
            }
        };
        answer.unwrap_or_else(|| base.file_control(op, arg))
    })
}

/// The connect hook asks how the open went, in sqlite3_open(), before the connection has any lock.
///
/// # Safety
/// `answer` is a place for an [`Opened`].
unsafe fn opened(connection: &mut Connection<Base>, answer: *mut Opened) -> ResultCode {
    let busy_timeout = connection.settings().busy_timeout_ms();
    let refusal = match connection.is_unencrypted() {
        true => UNENCRYPTED.as_ptr(),
        false => std::ptr::null(),
    };
    // SAFETY: the caller's promise: it is a place for an `Opened`.
    unsafe { *answer = Opened { busy_timeout, refusal } };
    ResultCode::OK
}

/// FCNTL_VFSNAME: an application asks for the names of the VFSes.
///
/// # Safety
/// `answer` is a place for a string, which the application frees.
unsafe fn vfs_name(base: Base, answer: *mut *mut c_char) -> ResultCode {
    let context = base.context();
    // SAFETY: the caller's promise: it is a place for an address.
    unsafe { *answer = context.host.allocate_text(&context.full_name) };
    ResultCode::OK
}

/// FCNTL_PERSIST_WAL: an application says whether to keep the WAL. Or SQLite asks whether to, when
/// the last connection closes and holds EXCLUSIVE.
///
/// # Safety
/// `number` points to a number; a negative one asks, and is replaced by the answer.
unsafe fn persist_wal(
    connection: &mut Connection<Base>,
    base: Base,
    number: *mut c_int,
) -> ResultCode {
    // SAFETY: the caller's promise; the base only changes the number while it is called.
    unsafe {
        let asks = *number < 0;
        if !asks {
            connection.application_persists_wal();
        }
        let rc = base.file_control(SQLITE_FCNTL_PERSIST_WAL, number.cast());
        if asks {
            let persists = *number > 0;
            let keeps = connection.keeps_wal(persists, &base.context().protection);
            if keeps != persists {
                *number = keeps.into();
            }
        }
        rc
    }
}

/// FCNTL_PRAGMA: SQLite compiles a pragma. This answers our own pragmas, and `journal_mode=wal`
/// where WAL mode is refused; the base answers others.
/// <https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlpragma>
///
/// # Safety
/// `arg` holds a place for the answer, the pragma's name, and its argument or null.
unsafe fn pragma(
    connection: &mut Connection<Base>,
    base: Base,
    arg: *mut *mut c_char,
) -> Option<ResultCode> {
    let context = base.context();
    // SAFETY: the caller's promise: the strings are terminated, and SQLite keeps them until this returns.
    let (name, value) = unsafe {
        let value = *arg.add(2);
        let value = if value.is_null() { c"" } else { CStr::from_ptr(value) };
        (CStr::from_ptr(*arg.add(1)).to_bytes(), value.to_bytes())
    };
    let is_wal = name.eq_ignore_ascii_case(b"journal_mode") && value.eq_ignore_ascii_case(b"wal");
    if is_wal {
        connection.expect_mode_change();
    }
    connection.pragma(name, value);
    let no_wal = connection.guards().no_wal().filter(|_| is_wal).map(str::to_owned);
    let is_ours = name.len() > 7 && name[..7].eq_ignore_ascii_case(b"kanban_");
    let (rc, text) = if let Some(why) = no_wal {
        // SQLite itself gives this answer where WAL mode does not work. Then applications fall back
        // to a rollback mode.
        (ResultCode::PROTOCOL, format!("locking protocol: {why}"))
    } else if !is_ours {
        return None;
    } else if name.eq_ignore_ascii_case(b"kanban_last_error") {
        match connection.last_line() {
            Some(line) => (ResultCode::OK, line),
            // SQLite then returns no row, as for an unknown pragma. After SQLITE_OK it would return
            // a row without a name.
            None => return Some(ResultCode::NOTFOUND),
        }
    } else if name.eq_ignore_ascii_case(b"kanban_status") {
        connection.guards().length.look_where_it_stands();
        let vfs = status::Vfs {
            full_name: &context.full_name,
            sqlite: context.host.version_number(),
            protection: context.protection,
        };
        (ResultCode::OK, status::json(connection, &vfs))
    } else if name.eq_ignore_ascii_case(b"kanban_log") {
        match connection.event_log() {
            Ok(events) => (ResultCode::OK, events),
            Err(why) => (ResultCode::ERROR, why.to_string()),
        }
    } else {
        let name = String::from_utf8_lossy(name);
        (
            ResultCode::ERROR,
            format!("unknown pragma {name}; known: kanban_last_error, kanban_log, kanban_status"),
        )
    };
    let text = context.host.allocate_text(&text);
    // SAFETY: the caller's promise; SQLite frees the text.
    unsafe { *arg = text };
    Some(if text.is_null() { ResultCode::NOMEM } else { rc })
}
