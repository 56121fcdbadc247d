//! Result codes: <https://www.sqlite.org/rescode.html>.

use std::ffi::c_int;
use std::fmt;

/// What a method of SQLite's interface returns. The low byte is the primary code. The bytes above it make the code an
/// extended one, which says more.
/// <https://www.sqlite.org/rescode.html#primary_result_codes_versus_extended_result_codes>
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResultCode(pub(crate) c_int);

impl ResultCode {
    pub(crate) const OK: Self = Self(0);
    pub(crate) const ERROR: Self = Self(1);
    pub(crate) const BUSY: Self = Self(5);
    pub(crate) const NOMEM: Self = Self(7);
    pub(crate) const READONLY: Self = Self(8);
    pub(crate) const IOERR: Self = Self(10);
    pub(crate) const CORRUPT: Self = Self(11);
    pub(crate) const NOTFOUND: Self = Self(12);
    pub(crate) const FULL: Self = Self(13);
    pub(crate) const CANTOPEN: Self = Self(14);
    pub(crate) const PROTOCOL: Self = Self(15);
    pub(crate) const SCHEMA: Self = Self(17);
    pub(crate) const WARNING: Self = Self(28);
    /// The answer of a lock call that may block, when its time is over. Then SQLite does not call the busy handler.
    pub(crate) const BUSY_TIMEOUT: Self = Self::BUSY.extended(3);
    pub(crate) const IOERR_SHORT_READ: Self = Self::IOERR.extended(2);
    pub(crate) const IOERR_WRITE: Self = Self::IOERR.extended(3);
    pub(crate) const IOERR_FSYNC: Self = Self::IOERR.extended(4);
    pub(crate) const IOERR_TRUNCATE: Self = Self::IOERR.extended(6);
    pub(crate) const IOERR_DELETE: Self = Self::IOERR.extended(10);
    pub(crate) const IOERR_LOCK: Self = Self::IOERR.extended(15);
    pub(crate) const READONLY_DBMOVED: Self = Self::READONLY.extended(4);
    pub(crate) const OK_LOAD_PERMANENTLY: Self = Self::OK.extended(1);

    /// The extended code of that number.
    pub(crate) const fn extended(self, number: c_int) -> Self {
        Self(self.0 | number << 8)
    }

    /// Whether another connection's lock was in the way: SQLITE_BUSY or one of its extended codes.
    pub(crate) const fn is_busy(self) -> bool {
        self.0 & 0xff == Self::BUSY.0
    }

    /// An error for every code but SQLITE_OK.
    pub(crate) fn ok(self) -> Result<(), Self> {
        if self == Self::OK { Ok(()) } else { Err(self) }
    }
}

/// `SQLITE_BUSY (5)`, for people. An extended code that is not defined above has the name of its primary code.
impl fmt::Display for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::BUSY_TIMEOUT => "SQLITE_BUSY_TIMEOUT",
            Self::IOERR_SHORT_READ => "SQLITE_IOERR_SHORT_READ",
            Self::IOERR_WRITE => "SQLITE_IOERR_WRITE",
            Self::IOERR_FSYNC => "SQLITE_IOERR_FSYNC",
            Self::IOERR_TRUNCATE => "SQLITE_IOERR_TRUNCATE",
            Self::IOERR_DELETE => "SQLITE_IOERR_DELETE",
            Self::IOERR_LOCK => "SQLITE_IOERR_LOCK",
            Self::READONLY_DBMOVED => "SQLITE_READONLY_DBMOVED",
            _ => match Self(self.0 & 0xff) {
                Self::BUSY => "SQLITE_BUSY",
                Self::NOMEM => "SQLITE_NOMEM",
                Self::READONLY => "SQLITE_READONLY",
                Self::IOERR => "SQLITE_IOERR",
                Self::CORRUPT => "SQLITE_CORRUPT",
                Self::FULL => "SQLITE_FULL",
                Self::CANTOPEN => "SQLITE_CANTOPEN",
                Self::PROTOCOL => "SQLITE_PROTOCOL",
                Self::WARNING => "SQLITE_WARNING",
                _ => "SQLITE_ERROR",
            },
        };
        write!(f, "{name} ({})", self.0)
    }
}

impl From<Result<(), ResultCode>> for ResultCode {
    fn from(result: Result<(), ResultCode>) -> Self {
        result.err().unwrap_or(Self::OK)
    }
}
