//! Those who look at a database from outside and compare its length with its header: a check of an application,
//! in either order, and a tool that copies page by page.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a database is, in bytes, by the beginning of its header.
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

/// How long a checkpoint that adds much waits for observers: one that is kept from running for longer between its two
/// looks may see what was in between. `docs/file-length.md` says so.
const WAITED_FOR: Duration = Duration::from_millis(20);

/// A file that an observer has found shorter than its header says.
#[derive(Clone, Debug)]
pub struct Deficit {
    /// Which observer.
    pub observer: &'static str,
    /// Its length, in bytes.
    pub size: u64,
    /// What the header said, in bytes.
    pub length: u64,
    /// What passed from the first look to the last.
    pub took: Duration,
}

/// Three observers of one database, as threads that look again and again.
pub struct Observers {
    is_over: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Deficit>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Observers {
    /// Begins to look at the database at `path`, which has a header already.
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

    /// The files that one of them has found shorter than their header says, if it was not kept from running meanwhile.
    #[must_use]
    pub fn deficits(&self) -> Vec<Deficit> {
        self.seen().into_iter().filter(|deficit| deficit.took < WAITED_FOR).collect()
    }

    /// All of them, also those of an observer that was kept from running.
    #[must_use]
    pub fn seen(&self) -> Vec<Deficit> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends them, and says the same as [`Self::deficits`].
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

/// It reads for long; what counts is that a page is missing that the header still speaks of.
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
