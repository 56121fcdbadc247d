//! What the table knows about a descriptor, as one word that a lock call reads without a mutex.
//!
//! Each transaction makes several lock calls. Almost all of them find their answer here.
//!
//! | word | meaning | [`Answer`] |
//! |---|---|---|
//! | 0 | the table must be asked | `AskTheTable` |
//! | `n` > 0 | the locks are made through descriptor `n` | `Through(n)` |
//! | -`n` | the locks are made through `n`; the descriptor that asks is open for reading only, so it can have no exclusive lock | `ThroughToRead(n)` |
//! | `i32::MIN` | the locks stay POSIX locks | `AsItIs` |
//!
//! The table writes a word under its mutex. A lock call reads it without one, so the word may change while the call is on its
//! way into the kernel. Two rules make that harmless:
//!
//! 1. The table closes a lock descriptor only when SQLite closes its last descriptor of the file, and then SQLite makes no call
//!    by it. If other code closed the lock descriptor, the call fails with EBADF, and the table is asked.
//! 2. No POSIX lock may arrive after the table found the file unlocked and made its locks open-file-description locks. So a
//!    call that is made as it is first counts itself and then reads the word once more; the table first sets the word to 0 and
//!    then reads the counts. All of these accesses are sequentially consistent: either the call sees the 0 and asks the table,
//!    or the table sees the call.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

/// Descriptors below this number have a word. For all others the table is asked.
const DESCRIPTORS: usize = 1024;

/// The word of a descriptor whose locks stay POSIX locks.
const AS_IT_IS: i32 = i32::MIN;

/// What is published about a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    AskTheTable,
    AsItIs,
    Through(RawFd),
    ThroughToRead(RawFd),
}

/// What is known about a descriptor without asking the table.
pub(crate) enum KnownTarget<'t> {
    /// Its locks stay POSIX locks. The caller makes the call while this value lives.
    AsItIs(Calling<'t>),
    /// It is open for reading only. Its locks go through the descriptor in this value, which could have exclusive locks.
    ToRead(RawFd),
    /// [`super::table::LockTable::target`] must be asked.
    Nothing,
}

/// A call that is made as it is. This value lives from before the call enters the kernel until it has returned.
pub(crate) struct Calling<'t>(&'t AtomicU32);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One word for each of the first descriptors of the process.
pub(super) struct Published {
    words: [AtomicI32; DESCRIPTORS],
    /// How many calls are being made as they are, by descriptor.
    calling: [AtomicU32; DESCRIPTORS],
    /// Whether [`Answer::Through`] and [`Answer::ThroughToRead`] are published at all.
    has_shortcut: AtomicBool,
}

impl Published {
    pub(super) const fn new() -> Self {
        Self {
            words: [const { AtomicI32::new(0) }; DESCRIPTORS],
            calling: [const { AtomicU32::new(0) }; DESCRIPTORS],
            has_shortcut: AtomicBool::new(false),
        }
    }

    /// Sets whether a call may bypass the function that SQLite would call. Code that replaced fcntl(2) before us wants to see
    /// each call.
    pub(super) fn allow_shortcut(&self, is_allowed: bool) {
        self.has_shortcut.store(is_allowed, Ordering::Relaxed);
    }

    /// The descriptor through which to make the locks asked for on `descriptor`; `None` if [`Self::known`] must be asked.
    pub(super) fn through(&self, descriptor: RawFd) -> Option<RawFd> {
        let word = self.words.get(usize::try_from(descriptor).ok()?)?.load(Ordering::Acquire);
        (word > 0).then_some(word)
    }

    /// What is known about a descriptor for which [`Self::through`] has no answer.
    pub(super) fn known(&self, descriptor: RawFd) -> KnownTarget<'_> {
        let Some(nth) = usize::try_from(descriptor).ok().filter(|nth| *nth < DESCRIPTORS) else {
            return KnownTarget::Nothing;
        };
        let word = &self.words[nth];
        match word.load(Ordering::Acquire) {
            AS_IT_IS => {
                self.calling[nth].fetch_add(1, Ordering::SeqCst);
                let calling = Calling(&self.calling[nth]);
                match word.load(Ordering::SeqCst) {
                    AS_IT_IS => KnownTarget::AsItIs(calling),
                    _ => KnownTarget::Nothing,
                }
            }
            through if through < 0 => KnownTarget::ToRead(-through),
            _ => KnownTarget::Nothing,
        }
    }

    /// Publishes what is known about a descriptor. The caller has the table's mutex.
    pub(super) fn publish(&self, descriptor: RawFd, answer: Answer) {
        let Some(word) = usize::try_from(descriptor).ok().and_then(|nth| self.words.get(nth))
        else {
            return;
        };
        let has_shortcut = self.has_shortcut.load(Ordering::Relaxed);
        let published = match answer {
            Answer::AsItIs => AS_IT_IS,
            Answer::Through(through) if has_shortcut => through,
            Answer::ThroughToRead(through) if has_shortcut => -through,
            _ => 0,
        };
        word.store(published, Ordering::SeqCst);
    }

    /// Whether a call by a descriptor is being made as it is. Only the table may ask, and only after it has published
    /// [`Answer::AskTheTable`].
    pub(super) fn is_calling(&self, descriptor: RawFd) -> bool {
        let nth = usize::try_from(descriptor).ok();
        let calling = nth.and_then(|nth| self.calling.get(nth));
        calling.is_some_and(|calling| calling.load(Ordering::SeqCst) > 0)
    }

    /// In a forked child: forgets the calls that other threads of the parent were making.
    pub(super) fn forget_calls(&self) {
        for calling in &self.calling {
            calling.store(0, Ordering::Relaxed);
        }
    }

    /// The word of a descriptor.
    #[cfg(test)]
    pub(super) fn word(&self, descriptor: RawFd) -> i32 {
        self.words[usize::try_from(descriptor).expect("it is open")].load(Ordering::Relaxed)
    }
}
