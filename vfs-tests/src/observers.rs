//! Observers that look at a database from outside and compare its length with its header: an application's check, in
//! either order, and a tool that copies page by page.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The length of a database in bytes, according to the beginning of its header.
/// <https://www.sqlite.org/fileformat2.html#the_database_header>
#[must_use]
pub fn by_header(header: &[u8; 32]) -> u64 {
    page_size(header)
        * u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]))
}

fn page_size(header: &[u8; 32]) -> u64 {
    match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        page => u64::from(page),
    }
}

/// How long a checkpoint that adds much waits for observers. An observer that does not run for longer than this
/// between its two looks may see an intermediate state, as `docs/file-length.md` says.
const WAITED_FOR: Duration = Duration::from_millis(20);

/// A file that an observer found shorter than its header says.
#[derive(Clone, Debug)]
pub struct Deficit {
    /// Which observer.
    pub observer: &'static str,
    /// The file's length, in bytes.
    pub size: u64,
    /// The length according to the header, in bytes.
    pub length: u64,
    /// The time between the first look and the last.
    pub took: Duration,
}

/// Three observers of one database: threads that look again and again.
pub struct Observers {
    is_over: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Deficit>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Observers {
    /// Begins to look at the database at `path`, which must already have a header.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn start(path: &Path) -> Self {
        let (is_over, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let looks: [fn(&File) -> Option<Deficit>; 3] = [size_first, header_first, copies];
        let threads = looks.map(|look| {
            let file = File::open(path).expect("it is there");
            let (is_over, seen) = (Arc::clone(&is_over), Arc::<Mutex<Vec<_>>>::clone(&seen));
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    if let Some(deficit) = look(&file) {
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push(deficit);
                    }
                }
            })
        });
        Self { is_over, seen, threads: threads.into() }
    }

    /// The files that an observer found too short, without the cases in which it did not run for a while.
    #[must_use]
    pub fn deficits(&self) -> Vec<Deficit> {
        self.seen().into_iter().filter(|deficit| deficit.took < WAITED_FOR).collect()
    }

    /// All files that an observer found too short, with those cases.
    #[must_use]
    pub fn seen(&self) -> Vec<Deficit> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the observers, and returns the same as [`Self::deficits`].
    ///
    /// # Panics
    /// If one of them could not look.
    #[must_use]
    pub fn end(mut self) -> Vec<Deficit> {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it can look");
        }
        self.deficits()
    }
}

fn size(file: &File) -> u64 {
    file.metadata().expect("it is open").len()
}

fn header(file: &File) -> [u8; 32] {
    let mut header = [0; 32];
    file.read_exact_at(&mut header, 0).expect("it has a header");
    header
}

fn size_first(file: &File) -> Option<Deficit> {
    let began = Instant::now();
    let size = size(file);
    let length = by_header(&header(file));
    let deficit = Deficit { observer: "size first", size, length, took: began.elapsed() };
    (size < length).then_some(deficit)
}

fn header_first(file: &File) -> Option<Deficit> {
    let began = Instant::now();
    let length = by_header(&header(file));
    let size = size(file);
    let deficit = Deficit { observer: "header first", size, length, took: began.elapsed() };
    (size < length).then_some(deficit)
}

/// Copying takes long; a deficit is a missing page that the header then still counts.
fn copies(file: &File) -> Option<Deficit> {
    let header = header(file);
    let (length, bytes) = (by_header(&header), page_size(&header));
    let mut page = vec![0; bytes as usize];
    let missing =
        (0..length / bytes).find(|nth| file.read_exact_at(&mut page, nth * bytes).is_err())?;
    let began = Instant::now();
    let is_short = by_header(&self::header(file)) == length;
    let (size, took) = (missing * bytes, began.elapsed());
    is_short.then_some(Deficit { observer: "copies", size, length, took })
}
