//! This thread. Windows never unwinds a thread's stack to cancel it: TerminateThread just ends it.

/// Does nothing.
pub(crate) struct Uncancelled;

impl Uncancelled {
    pub(crate) fn begin() -> Self {
        Self
    }
}

/// Does nothing.
pub(crate) struct UncancelledSleep;

impl UncancelledSleep {
    pub(crate) fn begin() -> Self {
        Self
    }
}

/// Does nothing.
pub(crate) fn end_if_cancelled() {}
