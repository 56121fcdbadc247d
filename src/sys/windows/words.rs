//! Words of a file on which processes wait for each other, by events: CreateEventW.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use windows_sys::Win32::Foundation::{WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{
    CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, CreateEventW, CreateWaitableTimerExW,
    EVENT_MODIFY_STATE, INFINITE, OpenEventW, SetEvent, SetWaitableTimer, TIMER_ALL_ACCESS,
    WaitForMultipleObjects, WaitForSingleObject,
};

use super::inode::{Inode, inode_of_file};
use super::{owned, wide};

/// Connects processes that wait for a change of a word with those that change it. Each word has an
/// event, named after the file's identity.
pub(crate) struct Words {
    name: String,
    /// The events of the words that this process has waited for, by the word's offset in bytes.
    /// Mutex rule: held to look at the list or change it, never during a wait.
    events: Mutex<HashMap<usize, Arc<OwnedHandle>>>,
}

impl Words {
    /// The words of a file. No event is made yet.
    pub(crate) fn map(file: &File, _: &Path, _: usize) -> io::Result<Self> {
        let Inode { volume, index } = inode_of_file(file)?;
        // "Global" makes the event visible to services and to the sessions of all users.
        let name = format!("Global\\kanban-vfs-{volume:x}-{index:x}-");
        Ok(Self { name, events: Mutex::default() })
    }

    /// The name of the event of a word, terminated.
    fn name_of(&self, at: usize) -> Vec<u16> {
        wide(OsStr::new(&format!("{}{at}", self.name)))
    }

    /// Sleeps until the word at the offset `at` is woken, for at most `limit`; false if the limit
    /// was reached. May return early. A wake since the last wait ends this one at once.
    /// CreateEventW
    ///
    /// # Errors
    /// Another user made an event of this name that this user may not use.
    #[doc(alias = "CreateEventW")]
    pub(crate) fn wait(&self, at: usize, _: u32, limit: Duration) -> io::Result<bool> {
        let known = self.events.lock().get(&at).map(Arc::clone);
        let Some(event) = known else {
            let name = self.name_of(at);
            // SAFETY: a terminated name. The event is reset by the thread that it wakes, and is not set yet.
            let event = owned(unsafe { CreateEventW(std::ptr::null(), 0, 0, name.as_ptr()) })?;
            self.events.lock().insert(at, Arc::new(event));
            // A wake before the event existed was lost: the caller must look at the word again.
            return Ok(true);
        };
        wait_for(&event, limit)
    }

    /// Writes nothing.
    pub(crate) fn write(&self, _: usize, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Wakes a thread that sleeps on the word at the offset `at`, or the next that will sleep.
    /// SetEvent
    #[doc(alias = "SetEvent")]
    pub(crate) fn wake(&self, at: usize) {
        let name = self.name_of(at);
        // SAFETY: a terminated name. Without an event, or the right to set it, this wakes nobody; waiters
        // look every few ms anyway.
        if let Ok(event) = owned(unsafe { OpenEventW(EVENT_MODIFY_STATE, 0, name.as_ptr()) }) {
            // SAFETY: an open handle of an event.
            unsafe { SetEvent(event.as_raw_handle()) };
        }
    }
}

/// Waits for an event, for at most `limit`; false if the limit was reached. It waits for a timer as
/// well, since the wait functions round their timeouts to the system's tick, mostly 15.6 ms.
/// WaitForMultipleObjects
fn wait_for(event: &OwnedHandle, limit: Duration) -> io::Result<bool> {
    thread_local! {
        /// This thread's timer; `None` before Windows 10 1803.
        static TIMER: Option<OwnedHandle> = {
            let flags = CREATE_WAITABLE_TIMER_HIGH_RESOLUTION;
            // SAFETY: no attributes, and no name.
            owned(unsafe {
                CreateWaitableTimerExW(std::ptr::null(), std::ptr::null(), flags, TIMER_ALL_ACCESS)
            })
            .ok()
        };
    }
    let event = event.as_raw_handle();
    let waited = TIMER.try_with(|timer| {
        let timer = timer.as_ref()?.as_raw_handle();
        // A negative time counts from now, in units of 100 ns.
        let due = -i64::try_from(limit.as_nanos() / 100).unwrap_or(i64::MAX).max(1);
        // SAFETY: open handles of this thread's timer and of an event, and a time that the call reads.
        unsafe {
            let set = SetWaitableTimer(timer, &raw const due, 0, None, std::ptr::null(), 0);
            let both = [event, timer];
            (set != 0).then(|| WaitForMultipleObjects(2, both.as_ptr(), 0, INFINITE))
        }
    });
    let waited = waited.ok().flatten().unwrap_or_else(|| {
        let ms = u32::try_from(limit.as_millis()).unwrap_or(INFINITE - 1).max(1);
        // SAFETY: an open handle.
        unsafe { WaitForSingleObject(event, ms) }
    });
    const TIMER_WAS_FIRST: u32 = WAIT_OBJECT_0 + 1;
    match waited {
        WAIT_OBJECT_0 => Ok(true),
        TIMER_WAS_FIRST | WAIT_TIMEOUT => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_wakes_a_waiter_that_has_another_handle() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("words");
        std::fs::write(&path, [0; 16]).expect("it can be written");
        let words =
            || Words::map(&File::open(&path).expect("it opens"), &path, 16).expect("its identity");
        let (sleeper, waker) = (words(), words());
        let ms = Duration::from_millis;
        assert!(sleeper.wait(8, 0, ms(1)).expect("an event"), "the first time, it looks again");
        assert!(!sleeper.wait(8, 0, ms(1)).expect("an event"));
        waker.wake(4);
        assert!(!sleeper.wait(8, 0, ms(1)).expect("an event"), "another word");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(ms(20));
                waker.wake(8);
            });
            assert!(sleeper.wait(8, 0, Duration::from_secs(60)).expect("an event"));
        });
    }
}
